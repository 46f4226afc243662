"""Embeddings batched across requests against one request at a time: `python -m tests.bench.embeddings` prints the table."""

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

from services.inference.embeddings.batching import Limits, batching
from services.inference.embeddings.cache import CachingEmbedder, MemoryVectorCache
from services.inference.embeddings.contract import Embedder
from services.inference.embeddings.late import MODEL
from services.inference.embeddings.minilm import MiniLM
from shared.clock import SystemClock
from tests.support.plain_embedder import EmbeddedEmbedder

CALLERS = (1, 64)
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


def main() -> None:
    found = asyncio.run(measure())
    sys.stdout.write(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}\n\n")
    sys.stdout.write(
        "| texts | callers | way | texts/s | CPU s per 1000 texts | p50 ms | p99 ms |\n" + "|---" * 7 + "|\n"
    )
    for (kind, callers, name), one in found.items():
        quantiles = statistics.quantiles(one.latencies, n=100)
        sys.stdout.write(
            f"| {kind} | {callers} | {name} | {one.texts / one.wall:.0f} | {one.cpu / one.texts * 1000:.2f} "
            f"| {quantiles[49]:.1f} | {quantiles[98]:.1f} |\n"
        )


if __name__ == "__main__":
    main()
