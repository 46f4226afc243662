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
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import psutil
import uvloop

from deploy.local.mesh import EmbeddedMesh
from tests.bench.streaming import Contender, contenders, cpu, peers

CALLERS = 8
CALLS = 50


async def caller(contender: Contender) -> list[float]:
    found = []
    for _ in range(CALLS):
        began = time.perf_counter()
        await contender.whole("tokens=20 gap_ms=0")
        found.append((time.perf_counter() - began) * 1000)
    return found


def whole_mesh(mesh: EmbeddedMesh) -> Sequence[int]:
    return [part["pid"] for part in mesh.status()["processes"] if part["name"] != "model"]


async def measured(contender: Contender, pids: Sequence[int]) -> tuple[float, float, float]:
    """CPU milliseconds a call, and how long calls take: p50 and p99."""
    await caller(contender)
    before = cpu(pids)
    found = sorted(
        each for times in await asyncio.gather(*(caller(contender) for _ in range(CALLERS))) for each in times
    )
    spent = (cpu(pids) - before) * 1000 / len(found)
    return spent, statistics.median(found), found[int(len(found) * 0.99)]


async def main() -> None:
    parser = argparse.ArgumentParser()
    peers(parser)
    asked = parser.parse_args()
    sys.stdout.write(
        f"load {psutil.getloadavg()[0]:.1f}\n| way | CPU ms a call | p50 ms | p99 ms |\n|---|---|---|---|\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            running, mesh = await contenders(stack, Path(folder), asked)
            for contender in running:
                ways = [(contender.name, contender.processes())]
                if contender.name == "agentnet":
                    ways = [
                        ("agentnet, inference and Envoy", ways[0][1]),
                        ("agentnet, all processes", whole_mesh(mesh)),
                    ]
                for name, pids in ways:
                    spent, p50, p99 = await measured(contender, pids)
                    sys.stdout.write(f"| {name} | {spent:.2f} | {p50:.1f} | {p99:.1f} |\n")


if __name__ == "__main__":
    uvloop.run(main())
