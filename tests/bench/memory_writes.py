"""How many memories with given vectors are stored a second, by the service itself and through the edge?

    python -m tests.bench.memory_writes [--memories 8000]

Starts an embedded mesh of its own. Contents are sentences of documentation, vectors 384 wide, rules those of every new mesh. The last
columns are processor microseconds for one memory, by process. Before each row the graph has taken in what was stored before; the last line
tells how fast it did, and what it took. Rows of more than 10,000 memories show storing beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil

from agentnet.memory.v1 import bulk_service_pb2 as pb
from agentnet.memory.v1 import memory_service_pb2
from agentnet.memory.v1.bulk_service_pb2_grpc import BulkServiceStub
from deploy.local.mesh import EmbeddedMesh, Options, embedded_mesh
from deploy.local.state import State
from shared.clock import SystemClock
from shared.identity import HEADER, Principal, Signer
from shared.postgres import open_database
from tests.bench.memory_latency import sentences
from tests.bench.streaming import cpu_by_process

_WAYS = ((100, 1), (1_000, 1), (1_000, 2), (100, 4))  # memories a batch, callers
_PARTS = ("memory", "postgres", "envoy", "gateway", "policy")
_WIDTH = 384
_WAITING = "select count(*) from memory.memory_episode_384 where not in_graph"
_SMALL = 4_000  # so many wait for more
_REST = 5  # seconds


def batches(texts: list[str], vectors: Any, size: int) -> list[pb.RememberManyRequest]:
    many = [
        memory_service_pb2.RememberRequest(content=text, agent="Athena", tags=["bench"], embedding=vector)
        for text, vector in zip(texts, vectors, strict=True)
    ]
    return [pb.RememberManyRequest(memories=many[at : at + size]) for at in range(0, len(many), size)]


async def stored(stub: Any, metadata: Any, requests: list[pb.RememberManyRequest], callers: int) -> float:
    """Seconds until all are stored."""
    left = iter(requests)

    async def caller() -> None:
        for request in left:
            answer = await stub.RememberMany(request, metadata=metadata, timeout=120)
            if not all(one.created for one in answer.memories):
                raise ValueError("what was stored before is measured")

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(caller())
    return time.perf_counter() - began


def row(way: str, size: int, callers: int, count: int, seconds: float, spent: Mapping[str, float]) -> str:
    parts = " | ".join(f"{spent[name] / count * 1e6:.0f}" for name in _PARTS)
    return f"| {way} | {size:,} | {callers} | {count / seconds:,.0f} | {parts} |\n"


async def measured(mesh: EmbeddedMesh, texts: list[str], count: int) -> None:
    state, chance = mesh.plan.state, np.random.default_rng(1)
    signer = Signer.from_file("gateway", state.key("gateway.pem"), SystemClock())
    signed = signer.sign(Principal("default", "bench", frozenset({"admin"})), timedelta(hours=1))
    token = json.loads((state.folder / "client.json").read_text())["token"]
    edge = (("authorization", f"Bearer {token}"),)
    limits = [("grpc.max_receive_message_length", 64 << 20)]
    async with (
        grpc.aio.insecure_channel(mesh.plan.address("memory"), options=limits) as beside,
        grpc.aio.insecure_channel(mesh.edge, options=limits) as through,
    ):
        ways = {"the service itself": (beside, ((HEADER, signed),)), "through the edge": (through, edge)}
        number, taken = 0, [0.0, 0.0, 0.0]
        for size, callers in _WAYS:
            for way, (channel, metadata) in ways.items():
                number += 1
                vectors = chance.normal(size=(count, _WIDTH))
                told = [f"{random.Random(at).choice(texts)} {number}-{at}" for at in range(count)]
                requests = batches(told, vectors, size)
                taken = [one + more for one, more in zip(taken, await graphed(mesh), strict=True)]
                before = cpu_by_process(mesh)
                seconds = await stored(BulkServiceStub(channel), metadata, requests, callers)
                await asyncio.sleep(1)  # what policy is told of the decisions
                spent = {name: after - before[name] for name, after in cpu_by_process(mesh).items()}
                sys.stdout.write(row(way, size, callers, count, seconds, spent))
                sys.stdout.flush()
        many, seconds, cpu = taken
        if many:
            cost = cpu / many * 1e6
            sys.stdout.write(f"the graph took in {many / seconds:,.0f} memories/s, {cost:,.0f} us of Postgres each\n")


async def graphed(mesh: EmbeddedMesh) -> list[float]:
    """How many memories joined the graph, in how many seconds, and what Postgres took for it; it rests when this ends."""
    async with open_database(mesh.plan.cluster.dsn("postgres"), pool=1) as database:
        (first,) = (await database.statement(_WAITING))[0]
        left, began, before = first, time.perf_counter(), cpu_by_process(mesh)["postgres"]
        moved, since, spent = 0.0, began, before
        while left > _SMALL or time.perf_counter() - since < _REST:
            await asyncio.sleep(0.5)
            (now,) = (await database.statement(_WAITING))[0]
            if now != left:
                moved, since, left, spent = first - now, time.perf_counter(), now, cpu_by_process(mesh)["postgres"]
    return [moved, since - began, spent - before]


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--memories", type=int, default=8_000)
    count = parser.parse_args().memories
    with tempfile.TemporaryDirectory() as folder:
        async with embedded_mesh(Options(State(Path(folder) / "state"))) as mesh:
            sys.stdout.write(f"load {psutil.getloadavg()[0]:.1f}\n")
            sys.stdout.write(f"| by | a batch | callers | memories/s | {' | '.join(_PARTS)} |\n|---|---|---|---|")
            sys.stdout.write("---|" * len(_PARTS) + "\n")
            await measured(mesh, sentences(2_000), count)


if __name__ == "__main__":
    asyncio.run(main())
