"""Lease and settle as inference asks for them: `python -m tests.bench.cost_wire` prints the table.

A cost service in a process of its own, inference's own client on a plain channel to it, a tenant with a monthly budget and
one for each session. The two empty calls are health checks: what gRPC and the service's interceptors take by themselves.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc

from agentnet.cost.v1 import cost_pb2
from agentnet.cost.v1 import cost_service_pb2 as pb
from agentnet.cost.v1 import cost_service_pb2_grpc as rpc
from deploy.local.postgres import Cluster
from deploy.local.state import free_port
from services.inference.cost_grpc import GrpcCost
from services.inference.peers import Payer, Settlement
from services.inference.providers.contract import Usage
from shared.identity import CredentialKind, Principal
from shared.ids import RandomIds
from tests.bench.cost_ledger import cluster, processor_seconds
from tests.support.identity import Keys, make_keys

ROUNDS, A_ROUND = 12, 150
TOGETHER, CALLERS = 6000, 128
ADA = Principal("acme", "ada", frozenset({"admin"}), CredentialKind.TOKEN)
IDS = RandomIds()


@asynccontextmanager
async def cost_service(postgres: Cluster, keys: Keys) -> AsyncIterator[tuple[grpc.aio.Channel, int]]:
    """A channel to it, and its process."""
    address = f"127.0.0.1:{free_port()}"
    settings = {
        "AGENTNET_COST_LISTEN": address,
        "AGENTNET_COST_POSTGRES_DSN": postgres.dsn("cost"),
        "AGENTNET_COST_IDENTITY_KEYS": str(keys.jwks),
        "AGENTNET_LOG_LEVEL": "ERROR",
    }
    process = subprocess.Popen([sys.executable, "-m", "services.cost"], env=os.environ | settings)
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            async with asyncio.timeout(60):
                await channel.channel_ready()
            yield channel, process.pid
    finally:
        process.terminate()
        process.wait()


async def limit(channel: grpc.aio.Channel, keys: Keys) -> None:
    """A monthly budget of the tenant with a soft limit, and one for each session."""
    stub, metadata = rpc.CostServiceStub(channel), keys.metadata()
    of_all = pb.SetBudgetRequest(
        limit_micros_usd=10**13, soft_limit_micros_usd=10**12, window=cost_pb2.BUDGET_WINDOW_MONTH
    )
    of_each = pb.SetBudgetRequest(limit_micros_usd=10**12, level=cost_pb2.BUDGET_LEVEL_SESSION, name="*")
    for request in (of_all, of_each):
        await stub.SetBudget(request, metadata=metadata)


async def pair(cost: GrpcCost, number: int) -> None:
    payer = Payer(ADA, IDS.new("gen"), "openai", "gpt-4o-mini", f"s{number % 50}", f"A@{number % 5}")
    await cost.reserve(payer, input_tokens=100, output_tokens=256)
    await cost.settle(Settlement(payer, Usage(100, 200)))


def processor_times(postgres: Cluster, service: int) -> Sequence[float]:
    """Seconds of inference's client (this process), of the service and of Postgres."""
    client, database = processor_seconds(postgres)
    nanoseconds = sum(int(task.read_text().split()[0]) for task in Path(f"/proc/{service}/task").glob("*/schedstat"))
    return client, nanoseconds / 1e9, database


async def rounds(*works: Callable[[int], Awaitable[None]]) -> Sequence[Sequence[float]]:
    """Milliseconds of each, in rounds that take turns, so that what else the machine does is told of all alike."""
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(ROUNDS):
        for found, work in zip(taken, works, strict=True):
            for number in range(A_ROUND):
                began = time.perf_counter()
                await work(number)
                found.append((time.perf_counter() - began) * 1000)
    return taken


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        keys = make_keys(Path(folder))
        async with cluster() as postgres, cost_service(postgres, keys) as (channel, service):
            await limit(channel, keys)
            cost = GrpcCost(channel, keys.signer)
            health: Any = health_pb2_grpc.HealthStub(channel)

            async def empty(_number: int) -> None:
                await health.Check(health_pb2.HealthCheckRequest())
                await health.Check(health_pb2.HealthCheckRequest())

            for number in range(200):
                await pair(cost, number)
            nothing, alone = await rounds(empty, lambda number: pair(cost, number))

            async def caller(which: int) -> None:
                for number in range(which, TOGETHER, CALLERS):
                    await pair(cost, number)

            before, began = processor_times(postgres, service), time.perf_counter()
            await asyncio.gather(*(caller(which) for which in range(CALLERS)))
            rate = TOGETHER / (time.perf_counter() - began)
            after = processor_times(postgres, service)
    sys.stdout.write(
        "| over gRPC | best quarter, ms | p50 ms | p99 ms | a second, 128 callers |\n|---|---|---|---|---|\n"
    )
    for name, taken, each in (("two empty calls", nothing, "-"), ("lease and settle", alone, f"{rate:.0f}")):
        quantiles = statistics.quantiles(taken, n=100)
        sys.stdout.write(f"| {name} | {quantiles[24]:.2f} | {quantiles[49]:.2f} | {quantiles[98]:.2f} | {each} |\n")
    used = [(late - early) / TOGETHER * 1000 for early, late in zip(before, after, strict=True)]
    sys.stdout.write(
        "processor ms of a pair, 128 callers: client {:.3f}, service {:.3f}, Postgres {:.3f}\n".format(*used)
    )
    sys.stdout.write(f"load after: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")


if __name__ == "__main__":
    uvloop.run(main())
