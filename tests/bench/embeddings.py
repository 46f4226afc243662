"""Embeddings batched across requests against one request at a time, and the model in int8 against itself in floats:
`python -m tests.bench.embeddings` prints both tables; with `--model` the second alone.
"""

from __future__ import annotations

import asyncio
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import product

from services.inference.embeddings.arithmetic import Arithmetic
from services.inference.embeddings.batching import Limits, batching
from services.inference.embeddings.cache import CachingEmbedder, MemoryVectorCache
from services.inference.embeddings.contract import Embedder, TokenIds
from services.inference.embeddings.device import Device
from services.inference.embeddings.late import MODEL
from services.inference.embeddings.minilm import MiniLM
from shared.clock import SystemClock
from tests.support.plain_embedder import EmbeddedEmbedder

CALLERS = (1, 64)
SHAPES = ((1, 4), (1, 8), (1, 16), (1, 64), (1, 256), (32, 8))  # texts of so many tokens in a run
TURNS = 60
LENGTHS = {"short": 6, "mixed": 25}  # words
TEXTS = 128
ROUNDS = 2
WORDS = [
    "the",
    "agent",
    "said",
    "that",
    "tea",
    "and",
    "rivers",
    "meet",
    "where",
    "markets",
    "open",
    "before",
    "prices",
    "of",
    "copper",
    "rise",
    "again",
]


@dataclass(slots=True)
class Measured:
    """All rounds of one way."""

    texts: int = 0
    wall: float = 0
    cpu: float = 0
    latencies: list[float] = field(default_factory=list)


def texts(draw: random.Random, words: int) -> list[str]:
    """At least 3 words each and `words` more on the average, at most 120."""
    return [" ".join(draw.choices(WORDS, k=min(120, 3 + int(draw.expovariate(1 / words))))) for _ in range(TEXTS)]


async def load(embedder: Embedder, work: Sequence[str], callers: int, into: Measured) -> None:
    """Callers that each have one text at a time embedded."""
    left = list(work)

    async def caller() -> None:
        while left:
            text = left.pop()
            began = time.perf_counter()
            await embedder.embed([text])
            into.latencies.append((time.perf_counter() - began) * 1000)

    began, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*(caller() for _ in range(callers)))
    into.texts += len(work)
    into.wall += time.perf_counter() - began
    into.cpu += time.process_time() - used


async def measure() -> dict[tuple[str, int, str], Measured]:
    async with AsyncExitStack() as stack:
        alone = EmbeddedEmbedder()
        stack.callback(alone.close)
        batched = await stack.enter_async_context(batching(MiniLM(), Limits()))
        cache = MemoryVectorCache(SystemClock(), size=32_000_000, ttl=timedelta(hours=1))
        cached = CachingEmbedder(batched, cache, model=MODEL, tenant=lambda: "bench")
        ways: dict[str, Embedder] = {"one request at a time": alone, "batched": batched, "batched, all cached": cached}
        found: dict[tuple[str, int, str], Measured] = {}
        draw = random.Random(7)  # the same texts in every run
        for callers, (kind, words), _ in product(CALLERS, LENGTHS.items(), range(ROUNDS)):
            work = texts(draw, words)
            await cached.embed(work)
            for name, embedder in ways.items():  # side by side, so that drift meets all
                await load(embedder, work, callers, found.setdefault((kind, callers, name), Measured()))
        return found


def runs(model: MiniLM, batch: Sequence[TokenIds], into: dict[str, list[float]]) -> None:
    """One run of the model, by the clock and by its thread's processor time, in milliseconds."""
    began, used = time.perf_counter(), time.thread_time()
    model.vectors(batch)
    into.setdefault("wall", []).append((time.perf_counter() - began) * 1000)
    into.setdefault("cpu", []).append((time.thread_time() - used) * 1000)


def table_of_arithmetic() -> None:
    """Runs of texts of so many tokens, in floats and in int8 in turns; and how alike the vectors are."""
    exact, fast = MiniLM(Device.CPU, arithmetic=Arithmetic.FLOAT), MiniLM(Device.CPU)
    draw = random.Random(7)
    rows = ["| tokens | texts | arithmetic | p50 ms | p99 ms | CPU p50 ms | least cosine |", "|---" * 7 + "|"]
    for texts, tokens in SHAPES:
        found: dict[str, dict[str, list[float]]] = {"floats": {}, "int8" if fast.int8 else "floats again": {}}
        alike: list[float] = []
        for _ in range(TURNS):
            batch = [[101, *(draw.randrange(1000, 20000) for _ in range(tokens - 2)), 102] for _ in range(texts)]
            for (_, into), model in zip(found.items(), (exact, fast), strict=True):
                runs(model, batch, into)
            one, other = (model.vectors(batch[:1])[0].vector for model in (exact, fast))
            alike.append(sum(a * b for a, b in zip(one, other, strict=True)))
        for name, into in found.items():
            wall, cpu = (statistics.quantiles(into[kind], n=100) for kind in ("wall", "cpu"))
            rows.append(
                f"| {tokens} | {texts} | {name} | {wall[49]:.2f} | {wall[98]:.2f} | {cpu[49]:.2f} | {min(alike):.6f} |"
            )
    sys.stdout.write("\n".join(rows) + "\n")


def main() -> None:
    sys.stdout.write(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, ")
    sys.stdout.write(f"load {os.getloadavg()[0]:.1f}\n\n")
    table_of_arithmetic()
    if "--model" in sys.argv:
        return
    found = asyncio.run(measure())
    sys.stdout.write(
        "\n| texts | callers | way | texts/s | CPU s per 1000 texts | p50 ms | p99 ms |\n" + "|---" * 7 + "|\n"
    )
    for (kind, callers, name), one in found.items():
        quantiles = statistics.quantiles(one.latencies, n=100)
        sys.stdout.write(
            f"| {kind} | {callers} | {name} | {one.texts / one.wall:.0f} | {one.cpu / one.texts * 1000:.2f} "
            f"| {quantiles[49]:.1f} | {quantiles[98]:.1f} |\n"
        )


if __name__ == "__main__":
    main()
