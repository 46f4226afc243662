"""One whole answer a call, side by side: CPU of the mesh, plain Envoy and, where they are given, other gateways.

`python -m tests.bench.unary [--litellm PATH] [--tensorzero PYTHON]`: 8 callers, one upstream that costs next to nothing, all ways in one run.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import psutil
import uvloop

from deploy.local.mesh import EmbeddedMesh
from tests.bench.floors import floors
from tests.bench.streaming import Contender, contenders, cpu, cpu_by_process, peers

CALLERS = 8
CALLS = 50


async def caller(contender: Contender) -> list[float]:
    found = []
    for _ in range(CALLS):
        began = time.perf_counter()
        await contender.whole("tokens=20 gap_ms=0")
        found.append((time.perf_counter() - began) * 1000)
    return found


async def measured(contender: Contender) -> tuple[float, float]:
    """How long calls take, in milliseconds: p50 and p99."""
    found = sorted(
        each for times in await asyncio.gather(*(caller(contender) for _ in range(CALLERS))) for each in times
    )
    return statistics.median(found), found[int(len(found) * 0.99)]


async def main() -> None:
    parser = argparse.ArgumentParser()
    peers(parser)
    asked = parser.parse_args()
    by_process, seconds = dict[str, float](), 0.0
    sys.stdout.write(
        f"load {psutil.getloadavg()[0]:.1f}\n| way | CPU ms a call | p50 ms | p99 ms |\n|---|---|---|---|\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            running, mesh = await contenders(stack, Path(folder), asked, floors)
            for contender in running:
                await caller(contender)
                parts, before, began = cpu_by_process(mesh), cpu(contender.processes()), time.monotonic()
                p50, p99 = await measured(contender)
                spent = (cpu(contender.processes()) - before) * 1000 / CALLS / CALLERS
                sys.stdout.write(f"| {contender.name} | {spent:.2f} | {p50:.1f} | {p99:.1f} |\n")
                if contender.name == "agentnet":
                    seconds, after = time.monotonic() - began, cpu_by_process(mesh)
                    by_process = {name: after[name] - parts[name] for name in after}
            idle = await idling(mesh, seconds)
    show(by_process, idle)


async def idling(mesh: EmbeddedMesh, seconds: float) -> Mapping[str, float]:
    """What the mesh's processes take for themselves in such a time."""
    before = cpu_by_process(mesh)
    await asyncio.sleep(seconds)
    after = cpu_by_process(mesh)
    return {name: after[name] - before[name] for name in after}


def show(busy: Mapping[str, float], idle: Mapping[str, float]) -> None:
    """What each process took a call, and what of it an idle mesh takes in the same time."""
    names = [name for name in sorted(busy, key=lambda name: -busy[name]) if busy[name] or idle[name]]
    sys.stdout.write(f"\n| CPU ms a call | {' | '.join(names)} | all |\n|---|{'---|' * (len(names) + 1)}\n")
    for what, found in (("agentnet", busy), ("of it idle", idle)):
        each = [found[name] * 1000 / CALLS / CALLERS for name in names]
        sys.stdout.write(f"| {what} | {' | '.join(f'{one:.2f}' for one in each)} | {sum(each):.2f} |\n")


if __name__ == "__main__":
    uvloop.run(main())
