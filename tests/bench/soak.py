"""500 streams at 20 ms a token on one inference process, for ten minutes: no error, and memory that stays as it is.

`python -m tests.bench.soak [--seconds 600] [--streams 500]`: the whole mesh with everything on. Prints the memory of inference over
the time and what the streams were like; fails when a stream lost a token or ended with an error, when memory passed 200 MB, and when
its last quarter lies more than 5 % above its first.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import psutil
import uvloop

from agentnet.inference.v1 import inference_service_pb2_grpc as rpc
from deploy.local.figures import stats
from deploy.local.mesh import EmbeddedMesh
from tests.bench.streaming import Contender, mesh_of, over_grpc, process
from tests.support.valkey import free_port

TOKENS = 500
GAP_MS = 20
SAMPLES = 24
SPREAD_SECONDS = 20.0
STREAMS_A_CONNECTION = 250
MOST_MEGABYTES = 200
FLAT = 1.05


@dataclass(slots=True)
class Seen:
    """What the run showed."""

    tokens: int = 0
    streams: int = 0
    firsts: list[float] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)
    cpu: float = 0.0


async def one_after_another(way: Contender, seen: Seen, *, until: float, delay: float) -> None:
    """A caller that has a stream running all the time."""
    await asyncio.sleep(delay)
    while time.monotonic() < until:
        first, count = await way.stream(f"tokens={TOKENS} gap_ms={GAP_MS}")
        if count != TOKENS:
            raise RuntimeError(f"a stream lost tokens: {count} of {TOKENS}")
        seen.tokens += count
        seen.streams += 1
        seen.firsts.append(first)


async def sampled(pid: int, seen: Seen, *, seconds: float) -> None:
    """Memory and CPU from the moment on in which all streams run."""
    await asyncio.sleep(SPREAD_SECONDS)
    process, began = psutil.Process(pid), time.monotonic()
    before = process.cpu_times()
    while time.monotonic() - began < seconds - SPREAD_SECONDS:
        seen.memory.append((time.monotonic() - began, process.memory_info().rss // 1_000_000))
        await asyncio.sleep(seconds / SAMPLES)
    after = process.cpu_times()
    seen.cpu = (after.user + after.system - before.user - before.system) / (time.monotonic() - began)


async def run(mesh: EmbeddedMesh, ways: Sequence[Contender], *, seconds: float, streams: int) -> Seen:
    (pid,) = (part["pid"] for part in mesh.status()["processes"] if part["name"] == "inference")
    seen, until = Seen(), time.monotonic() + seconds
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(sampled(pid, seen, seconds=seconds))
        for place in range(streams):
            delay = place / streams * SPREAD_SECONDS  # callers do not come at one moment
            tasks.create_task(one_after_another(ways[place % len(ways)], seen, until=until, delay=delay))
    return seen


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--streams", type=int, default=500)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            port = free_port()
            await stack.enter_async_context(process(sys.executable, "-m", "tests.bench.upstream", str(port), port=port))
            mesh, _ = await mesh_of(stack, Path(folder), port)
            token = json.loads((mesh.plan.state.folder / "client.json").read_text())["token"]
            ways = []
            for number in range(-(-asked.streams // STREAMS_A_CONNECTION)):
                options = [("grpc.use_local_subchannel_pool", 1), ("agentnet.connection", number)]
                channel = await stack.enter_async_context(grpc.aio.insecure_channel(mesh.edge, options=options))
                ways.append(over_grpc(mesh, rpc.InferenceServiceStub(channel), token))
            try:
                seen = await run(mesh, ways, seconds=asked.seconds, streams=asked.streams)
            finally:
                late = sum(one["value"] for one in stats(mesh.plan.state, "inference.health_check.failure"))
                sys.stdout.write(f"health checks of inference that were not answered in time: {late}\n")
    show(seen, asked)
    judge(seen)


def show(seen: Seen, asked: argparse.Namespace) -> None:
    firsts = sorted(first * 1000 for first in seen.firsts)
    sys.stdout.write(f"{asked.streams} streams, {asked.seconds:.0f} s, load {psutil.getloadavg()[0]:.1f}\n")
    sys.stdout.write(f"streams without error: {seen.streams}, tokens: {seen.tokens}\n")
    sys.stdout.write(
        f"first token ms: p50 {statistics.median(firsts):.0f}, p99 {firsts[int(len(firsts) * 0.99)]:.0f}\n"
    )
    sys.stdout.write(f"inference: {seen.cpu:.2f} processors\n| s | RSS MB |\n|---|---|\n")
    for at, megabytes in seen.memory:
        sys.stdout.write(f"| {at:.0f} | {megabytes} |\n")


def judge(seen: Seen) -> None:
    """Raises RuntimeError when memory is not what it should be."""
    held = [megabytes for _, megabytes in seen.memory]
    quarter = max(1, len(held) // 4)
    began, ended = statistics.mean(held[:quarter]), statistics.mean(held[-quarter:])
    if max(held) >= MOST_MEGABYTES or ended > began * FLAT:
        raise RuntimeError(f"memory: {began:.0f} MB in the first quarter, {ended:.0f} in the last, at most {max(held)}")
    sys.stdout.write(
        f"memory is flat: {began:.0f} MB in the first quarter, {ended:.0f} in the last, at most {max(held)}\n"
    )


if __name__ == "__main__":
    uvloop.run(main())
