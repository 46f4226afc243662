"""How long a streamed call takes to its first token, beside plain Envoy to the same model, and each process's CPU.

`python -m tests.bench.inference_start [--litellm PATH] [--tensorzero PYTHON]`: the model itself, plain Envoy, the mesh with everything on
(JWT, admission, policy, money, the live tail) and what is given, by turns in one run: one call after another, one more while 64 paced
streams of its own kind run (what "at 64 streams" means), and 64 at the same moment. "Added" is how far a way's p50 and p99 lie above
those of plain Envoy under the same load.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import psutil
import uvloop

from tests.bench.floors import asking
from tests.bench.streaming import Contender, contenders, cpu_by_process, peers

ALONE = 100
RUNNING = 64
ROUNDS = 3
SHORT = "tokens=1 gap_ms=0"
PACED = "tokens=300 gap_ms=20"


async def alone(contender: Contender) -> list[float]:
    return [(await contender.stream(SHORT))[0] for _ in range(ALONE)]


async def one_more(contender: Contender) -> list[float]:
    """Starts while so many streams run at 20 ms a token, away from the moment in which those began."""
    running = [asyncio.ensure_future(contender.stream(PACED)) for _ in range(RUNNING)]
    await asyncio.sleep(2)
    found = []
    while not any(stream.done() for stream in running):
        found.append((await contender.stream(SHORT))[0])
        await asyncio.sleep(0.03)
    await asyncio.gather(*running)
    return found


async def at_once(contender: Contender) -> list[float]:
    return [first for first, _ in await asyncio.gather(*(contender.stream(SHORT) for _ in range(RUNNING)))]


ALONE_LOAD, AT_ONCE_LOAD = "one after another", f"{RUNNING} at the same moment"
LOADS = {ALONE_LOAD: alone, f"one more while {RUNNING} stream": one_more, AT_ONCE_LOAD: at_once}


async def main() -> None:
    parser = argparse.ArgumentParser()
    peers(parser)
    asked = parser.parse_args()
    found: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    costs: defaultdict[str, Counter[str]] = defaultdict(Counter)
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            running, mesh = await contenders(stack, Path(folder), asked, asking)
            for contender in running:
                for _ in range(20):
                    await contender.stream(SHORT)
            for load in list(LOADS) * ROUNDS:
                for contender in running:
                    before = cpu_by_process(mesh)
                    found[load, contender.name] += await LOADS[load](contender)
                    if contender.name == "agentnet" and load in (ALONE_LOAD, AT_ONCE_LOAD):
                        after = cpu_by_process(mesh)
                        costs[load] += Counter({name: after[name] - before[name] for name in after})
    show(found)
    show_costs(
        {load: {name: of[name] * 1000 / len(found[load, "agentnet"]) for name in of} for load, of in costs.items()}
    )


def show(found: Mapping[tuple[str, str], Sequence[float]]) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M')}, load {psutil.getloadavg()[0]:.1f}\n")
    sys.stdout.write("| load | way | starts | first token p50 ms | p99 ms | added p50 ms | added p99 ms |\n")
    sys.stdout.write(f"|{'---|' * 7}\n")
    for load in LOADS:
        p50, p99 = percentiles(found[load, "plain Envoy"])
        for (under, way), firsts in found.items():
            if under == load:
                here50, here99 = percentiles(firsts)
                shown = " | ".join(f"{one:.2f}" for one in (here50, here99, here50 - p50, here99 - p99))
                sys.stdout.write(f"| {load} | {way} | {len(firsts)} | {shown} |\n")


def percentiles(seconds: Sequence[float]) -> tuple[float, float]:
    """The 50th and the 99th, in milliseconds."""
    found = sorted(each * 1000 for each in seconds)
    return statistics.median(found), found[int(len(found) * 0.99)]


def show_costs(costs: Mapping[str, Mapping[str, float]]) -> None:
    names = sorted({name for cost in costs.values() for name in cost})
    sys.stdout.write(f"\n| CPU ms a start | {' | '.join(names)} | all |\n|---|{'---|' * (len(names) + 1)}\n")
    for load, cost in costs.items():
        shown = " | ".join(f"{cost.get(name, 0):.2f}" for name in names)
        sys.stdout.write(f"| {load} | {shown} | {sum(cost.values()):.2f} |\n")


if __name__ == "__main__":
    uvloop.run(main())
