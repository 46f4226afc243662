"""What admission costs: `python -m tests.bench.gateway_admission` prints the table. Gateway and Envoy run in a process of their
own, limits are kept in a real Valkey.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import uvloop
from envoy.service.auth.v3 import external_auth_pb2

from agentnet.gateway.v1 import health_service_pb2, identity_service_pb2
from services.gateway.buckets_local import LocalBuckets
from services.gateway.buckets_redis import FallbackBuckets, RedisBuckets
from shared.clock import SystemClock
from shared.log import configure
from shared.redis import open_redis
from tests.support.edge import memory_stores, running_edge
from tests.support.valkey import free_port, running_valkey

CALLS = 2000
SECONDS = 5.0
AT_ONCE = 64
TICKS = os.sysconf("SC_CLK_TCK")
WIDE = {name: {"per_second": 1e6, "burst": 10_000_000} for name in ("tenant", "user", "key", "method")}


async def serve(folder: Path, redis_url: str) -> None:
    """The child: says where it is and serves until its standard input ends."""
    configure("gateway", "WARNING")
    clock = SystemClock()
    async with open_redis(redis_url) as redis:
        buckets = FallbackBuckets(RedisBuckets(redis), LocalBuckets(clock), clock)
        stores = replace(memory_stores(), buckets=buckets)
        ttl = {"key_cache_ttl": 5, "directory_cache_ttl": 5}
        async with running_edge(folder, stores=stores, limits=WIDE, log_level="WARNING", **ttl) as edge:
            made = await edge.ok("POST", "/v1/keys", edge.token(), {"display_name": "bench", "roles": ["admin"]})
            told = {"edge": edge.address, "gateway": edge.behind, "key": made["secret"], "token": edge.token()}
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()
            await asyncio.to_thread(sys.stdin.read)


def check(key: str) -> external_auth_pb2.CheckRequest:
    """What Envoy asks for a call with an API key."""
    request = external_auth_pb2.CheckRequest()
    http = request.attributes.request.http
    http.path, http.method = "/agentnet.gateway.v1.IdentityService/GetCaller", "POST"
    http.headers.update({"x-api-key": key, "content-type": "application/grpc", "x-request-id": "bench"})
    request.attributes.source.address.socket_address.address = "127.0.0.1"
    return request


async def latencies(call: Any) -> list[float]:
    """Milliseconds of calls one after another, sorted."""
    found = []
    for number in range(CALLS + 200):
        began = time.perf_counter()
        await call()
        if number >= 200:
            found.append((time.perf_counter() - began) * 1000)
    return sorted(found)


async def rate(call: Any, pid: int) -> tuple[float, float]:
    """Calls a second, so many at once; and what one costs the process in CPU microseconds."""
    count, ends, spent = 0, time.perf_counter() + SECONDS, cpu_seconds(pid)

    async def one() -> None:
        nonlocal count
        while time.perf_counter() < ends:
            await call()
            count += 1

    await asyncio.gather(*(one() for _ in range(AT_ONCE)))
    return count / SECONDS, (cpu_seconds(pid) - spent) / count * 1e6


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def row(name: str, found: list[float]) -> str:
    return f"| {name} | {found[len(found) // 2]:.2f} | {found[int(len(found) * 0.99)]:.2f} |"


async def measure(told: dict[str, str], pid: int) -> list[str]:
    async with grpc.aio.insecure_channel(told["edge"]) as edge, grpc.aio.insecure_channel(told["gateway"]) as gateway:
        bearer = (("authorization", f"Bearer {told['token']}"),)
        key = (("x-api-key", told["key"]),)
        liveness = edge.unary_unary("/agentnet.gateway.v1.HealthService/GetLiveness")
        caller = edge.unary_unary("/agentnet.gateway.v1.IdentityService/GetCaller")
        ask = gateway.unary_unary("/envoy.service.auth.v3.Authorization/Check")
        empty = health_service_pb2.GetLivenessRequest().SerializeToString()
        nobody = identity_service_pb2.GetCallerRequest().SerializeToString()
        asked = check(told["key"]).SerializeToString()
        open_ = row("through Envoy, open method", await latencies(lambda: liveness(empty)))
        by_key = row("through Envoy, admitted by API key", await latencies(lambda: caller(nobody, metadata=key)))
        by_jwt = row("through Envoy, admitted by JWT", await latencies(lambda: caller(nobody, metadata=bearer)))
        itself = row("admission itself, asked as Envoy asks", await latencies(lambda: ask(asked)))
        each_second, microseconds = await rate(lambda: ask(asked), pid)
        return [
            "| call, one after another | p50 ms | p99 ms |",
            "|---|---|---|",
            *(open_, by_key, by_jwt, itself),
            "",
            f"{AT_ONCE} at once, one gateway process: {each_second:.0f} admissions a second, {microseconds:.0f} us of CPU each",
        ]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, running_valkey(Path(folder), free_port()) as url:
        command = (sys.executable, "-m", "tests.bench.gateway_admission", "serve", folder, url)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout
            told = json.loads(child.stdout.readline())
            table = uvloop.run(measure(told, child.pid))
            child.communicate("")
    sys.stdout.write("\n".join((*table, f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", "")))


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        uvloop.run(serve(Path(sys.argv[2]), sys.argv[3]))
    else:
        main()
