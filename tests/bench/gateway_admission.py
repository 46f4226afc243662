"""What admission costs: `python -m tests.bench.gateway_admission` prints the table. Two gateways with an Envoy each take turns,
in processes of their own: one takes calls ahead of the limits, which are kept in a real Valkey, and one asks it each time.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import uvloop

from agentnet.gateway.v1 import identity_service_pb2
from deploy.envoy.admission import unasked
from deploy.local.parts import door_socket
from deploy.local.state import State
from services.gateway import question
from services.gateway.buckets_leased import LeasedBuckets
from services.gateway.buckets_local import LocalBuckets
from services.gateway.buckets_redis import FallbackBuckets, RedisBuckets
from shared.clock import SystemClock
from shared.identity import HEADER, Principal, Signer
from shared.log import configure
from shared.redis import open_redis
from tests.support.edge import inputs_of, memory_stores, running_edge, running_envoy
from tests.support.valkey import free_port, running_valkey

CALLS = 1500
SECONDS = 3.0
AT_ONCE = 64
NOBODY = identity_service_pb2.GetCallerRequest().SerializeToString()
CALLER = "agentnet.gateway.v1.IdentityService/GetCaller"
TICKS = os.sysconf("SC_CLK_TCK")
WIDE = {name: {"per_second": 1e6, "burst": 10_000_000} for name in ("tenant", "user", "key", "method")}


AHEAD, EACH = "ahead", "each"


async def serve(folder: Path, redis_url: str, limited: str) -> None:
    """The child: says where it is and serves until its standard input ends."""
    configure("gateway", "WARNING")
    clock = SystemClock()
    async with open_redis(redis_url) as redis:
        buckets = FallbackBuckets(RedisBuckets(redis), LocalBuckets(clock), clock)
        stores = replace(memory_stores(), buckets=LeasedBuckets(buckets, clock) if limited == AHEAD else buckets)
        ttl = {"key_cache_ttl": 5, "directory_cache_ttl": 5}
        async with running_edge(folder, stores=stores, limits=WIDE, log_level="WARNING", **ttl) as edge:
            port, beside = free_port(), folder / "beside"
            beside.mkdir()
            inputs = inputs_of(edge.state, edge.behind, edge=port, internal=free_port())
            async with running_envoy(inputs, beside, partial(unadmitted, edge.state)):
                made = await edge.ok("POST", "/v1/keys", edge.token(), {"display_name": "bench", "roles": ["admin"]})
                told = {
                    "edge": edge.address, "unadmitted": f"127.0.0.1:{port}", "key": made["secret"],
                    "token": edge.token(), "door": str(door_socket(edge.state)),
                }  # fmt: skip
                sys.stdout.write(json.dumps(told) + "\n")
                sys.stdout.flush()
                await asyncio.to_thread(sys.stdin.read)


def unadmitted(state: State, config: Any) -> None:
    """The same edge, but that nobody is asked about one method and everyone's name is the same."""
    signer = Signer("gateway", state.key("gateway.pem").read_bytes(), SystemClock())
    name = signer.sign(Principal("acme", "ada", frozenset({"admin"})), timedelta(hours=1))
    (chain,) = config["static_resources"]["listeners"][0]["filter_chains"]
    for found in chain["filters"][0]["typed_config"]["route_config"]["virtual_hosts"][0]["routes"]:
        if found["match"].get("path") == f"/{CALLER}":
            found["typed_per_filter_config"] = unasked()
            found["request_headers_to_add"] = [{"header": {"key": HEADER, "value": name}}]


def check(key: str) -> bytes:
    """What Envoy asks for a call with an API key."""
    return (
        f"POST {question.ADMIT}/{CALLER} HTTP/1.1\r\nhost: 127.0.0.1:8080\r\ncontent-length: 0\r\n"
        f"x-api-key: {key}\r\n{question.TYPE}: application/grpc\r\nx-request-id: bench\r\n{question.ADDRESS}: 127.0.0.1\r\n"
        "x-envoy-internal: true\r\nx-forwarded-for: 127.0.0.1\r\nx-envoy-expected-rq-timeout-ms: 10000\r\n\r\n"
    ).encode()


class Asking:
    """Envoy's connections to the door: as many as there are callers at once."""

    def __init__(self, door: str, asked: bytes) -> None:
        self._door = door
        self._asked = asked
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def __call__(self) -> None:
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_unix_connection(self._door)
        writer.write(self._asked)
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        self._idle.append((reader, writer))


async def latencies(calls: Mapping[str, Any]) -> dict[str, list[float]]:
    """Milliseconds of calls one after another and kind after kind, so that all had the same moments; sorted."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(CALLS + 200):
        for name, call in calls.items():
            began = time.perf_counter()
            await call()
            if number >= 200:
                found[name].append((time.perf_counter() - began) * 1000)
    return {name: sorted(took) for name, took in found.items()}


def at(took: list[float], part: float) -> float:
    return took[int(len(took) * part)]


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


async def measure(told: dict[str, dict[str, str]], pids: dict[str, int]) -> list[str]:
    async with AsyncExitStack() as channels:
        ahead, each = told[AHEAD], told[EACH]
        unadmitted = await channels.enter_async_context(grpc.aio.insecure_channel(ahead["unadmitted"]))
        await unadmitted.channel_ready()
        free = partial(unadmitted.unary_unary(f"/{CALLER}"), NOBODY)
        door = {name: Asking(one["door"], check(one["key"])) for name, one in told.items()}
        calls = {
            "through Envoy, admission off": free,
            "API key": await through(channels, ahead, ("x-api-key", ahead["key"])),
            "JWT": await through(channels, ahead, ("authorization", f"Bearer {ahead['token']}")),
            "API key, Valkey asked on each call": await through(channels, each, ("x-api-key", each["key"])),
            "the door alone": door[AHEAD],
            "the door alone, Valkey asked on each call": door[EACH],
        }
        found = await latencies(calls)
        rates = [await rate(door[name], pids[name]) for name in (AHEAD, EACH, AHEAD, EACH)]
    none = found["through Envoy, admission off"]
    added = [name for name in found if not name.startswith("the")][1:]
    return [
        "| the same call, in turns | p50 ms | p99 ms |",
        "|---|---|---|",
        *(f"| {name} | {at(took, 0.5):.2f} | {at(took, 0.99):.2f} |" for name, took in found.items()),
        *(
            f"| added, {name} | {at(found[name], 0.5) - at(none, 0.5):.2f} | {at(found[name], 0.99) - at(none, 0.99):.2f} |"
            for name in added
        ),
        "",
        f"{AT_ONCE} at once, one gateway process; admissions a second, and CPU us each:",
        *(
            f"{name}: {each_second:.0f}, {microseconds:.0f}"
            for name, (each_second, microseconds) in zip((AHEAD, EACH) * 2, rates, strict=True)
        ),
    ]


async def through(channels: AsyncExitStack, told: dict[str, str], credential: tuple[str, str]) -> Any:
    """The call through that gateway's Envoy."""
    edge = await channels.enter_async_context(grpc.aio.insecure_channel(told["edge"]))
    return partial(edge.unary_unary(f"/{CALLER}"), NOBODY, metadata=(credential,))


def main() -> None:
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        url = stack.enter_context(running_valkey(Path(folder), free_port()))
        told, children = {}, {}
        for name in (AHEAD, EACH):
            (own := Path(folder, name)).mkdir()
            command = (sys.executable, "-m", "tests.bench.gateway_admission", "serve", str(own), url, name)
            child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            children[name] = stack.enter_context(child)
            stack.callback(child.terminate)
            assert child.stdout
            told[name] = json.loads(child.stdout.readline())
        table = uvloop.run(measure(told, {name: child.pid for name, child in children.items()}))
        for child in children.values():
            child.communicate("")
    sys.stdout.write("\n".join((*table, f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", "")))


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        uvloop.run(serve(Path(sys.argv[2]), *sys.argv[3:]))
    else:
        main()
