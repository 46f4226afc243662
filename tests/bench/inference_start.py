"""What it costs to start a streamed call: the time its first token takes, and each process's CPU.

`python -m tests.bench.inference_start [--litellm PATH] [--tensorzero PYTHON]`: the model itself, plain Envoy, the mesh with everything on
(JWT, admission, policy, money, the live tail) and what is given, in one run: one call after another, one more while 64 paced streams
run, and 64 at the same moment. "Added" is what a way's median lies above the model's own and above plain Envoy's under the same load.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil
import uvloop

from tests.bench.floors import asking
from tests.bench.streaming import Contender, contenders, cpu_by_process, peers

ALONE = 200
RUNNING = 64
ROUNDS = 5
SHORT = "tokens=1 gap_ms=0"


@dataclass(frozen=True, slots=True)
class First:
    """First tokens of one way under one load, in milliseconds."""

    load: str
    way: str
    p50: float
    p99: float

    @classmethod
    def of(cls, load: str, way: str, seconds: Sequence[float]) -> First:
        found = sorted(each * 1000 for each in seconds)
        return cls(load, way, statistics.median(found), found[int(len(found) * 0.99)])


async def alone(contender: Contender) -> list[float]:
    return [(await contender.stream(SHORT))[0] for _ in range(ALONE)]


async def one_more(contender: Contender) -> list[float]:
    """Starts while so many streams run at 20 ms a token, away from the moment in which those began."""
    running = [asyncio.create_task(contender.stream("tokens=400 gap_ms=20")) for _ in range(RUNNING)]
    await asyncio.sleep(2)
    found = []
    while not any(stream.done() for stream in running):
        found.append((await contender.stream(SHORT))[0])
        await asyncio.sleep(0.03)
    await asyncio.gather(*running)
    return found


async def at_once(contender: Contender) -> list[float]:
    found: list[float] = []
    for _ in range(ROUNDS):
        found += [first for first, _ in await asyncio.gather(*(contender.stream(SHORT) for _ in range(RUNNING)))]
    return found


LOADS = (
    ("one after another", alone),
    (f"one more while {RUNNING} stream", one_more),
    (f"{RUNNING} at the same moment", at_once),
)


async def main() -> None:
    parser = argparse.ArgumentParser()
    peers(parser)
    asked = parser.parse_args()
    rows: list[First] = []
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            running, mesh = await contenders(stack, Path(folder), asked, asking)
            for contender in running:
                for _ in range(20):
                    await contender.stream(SHORT)
            costs = {}
            for load, starts in LOADS:
                for contender in running:
                    before = cpu_by_process(mesh)
                    found = await starts(contender)
                    rows.append(First.of(load, contender.name, found))
                    if contender.name == "agentnet" and starts is not one_more:
                        after = cpu_by_process(mesh)
                        costs[load] = {name: (after[name] - before[name]) * 1000 / len(found) for name in after}
    show(rows, costs)


def show(rows: Sequence[First], costs: Mapping[str, Mapping[str, float]]) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M')}, load {psutil.getloadavg()[0]:.1f}\n")
    sys.stdout.write("| load | way | first token p50 ms | p99 ms | added p50 ms | above Envoy | added p99 ms |\n")
    sys.stdout.write(f"|{'---|' * 7}\n")
    by_way = {(row.load, row.way): row for row in rows}
    for row in rows:
        model, envoy = by_way[row.load, "the model itself"], by_way[row.load, "plain Envoy"]
        sys.stdout.write(
            f"| {row.load} | {row.way} | {row.p50:.2f} | {row.p99:.2f} | {row.p50 - model.p50:.2f} | "
            f"{row.p50 - envoy.p50:.2f} | {row.p99 - model.p99:.2f} |\n"
        )
    names = sorted({name for cost in costs.values() for name in cost})
    sys.stdout.write(f"\n| CPU ms a start | {' | '.join(names)} | all |\n|---|{'---|' * (len(names) + 1)}\n")
    for load, cost in costs.items():
        shown = " | ".join(f"{cost[name]:.2f}" for name in names)
        sys.stdout.write(f"| {load} | {shown} | {sum(cost.values()):.2f} |\n")


if __name__ == "__main__":
    uvloop.run(main())
