"""How do memory's backends compare, as memory uses them? Each stores and finds the same memories through the same contract.

    python -m tests.bench.memory_backends [--size 2000]        (make bench-backends: with every engine installed)

Real sentences and their real embeddings, one tenant, one caller, this machine. Postgres keeps everything, survives a crash and
serves many processes; the others keep vectors in this process. CPU is this process's own per search: it tells more than time on a
busy machine, but not what Postgres spends in its own. An engine that is not installed is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
from pgvector.asyncpg import register_vector

from services.memory import rank
from services.memory.backends.contract import EngineStore
from services.memory.store import Filter, MemoryStore, Probe
from services.memory.store_memory import InMemoryStore
from services.memory.store_postgres import PostgresMemoryStore
from services.memory.texts import query_words
from shared.postgres import open_database
from tests.bench.memory_bulk import Sentences
from tests.bench.memory_latency import (
    NOW,
    TENANT,
    embedded,
    exact,
    fresh_cluster,
    overlap,
    sentences,
    store_all,
    timed,
)
from tests.support.memory_engines import ENGINES, installed

_ASKED = 50
_K = 10


async def measured(name: str, store: MemoryStore, texts: list[str], vectors: Any) -> str:
    """A line of the table."""
    known, questions, asked = vectors[:-_ASKED], texts[-_ASKED:], vectors[-_ASKED:]
    spent = await store_all(store, TENANT, Sentences(texts[:-_ASKED], known, [b""] * len(known)))
    await store.tend(TENANT, busy=lambda: False)
    queries = [tuple(one.astype(float).tolist()) for one in asked]
    at_text = {text: at for at, text in enumerate(texts)}

    async def dense(at: int) -> Any:
        return await store.nearest(TENANT, queries[at], Filter(), now=NOW, limit=_K)

    async def hybrid(at: int) -> Any:
        probe = Probe(queries[at], query_words(questions[at]), 60, 1)
        gathered = await store.gather(TENANT, probe, Filter(), now=NOW)
        return rank.ranked(questions[at], gathered, rank.Taste(), now=NOW, limit=_K)

    began = time.process_time()
    times, found = await timed(dense, _ASKED)
    cpu = (time.process_time() - began) * 1000 / (_ASKED + 10)
    recall = overlap([[at_text[one.memory.content] for one in line] for line in found], exact(known, asked))
    both, _ = await timed(hybrid, _ASKED)
    cells = [f"{value:.2f}" for value in (*np.percentile(times, [50, 99]), cpu, *np.percentile(both, [50, 99]))]
    return f"| {name} | {len(known) / spent:,.0f} | {' | '.join(cells)} | {recall:.3f} |"


async def table(texts: list[str], vectors: Any) -> AsyncIterator[str]:
    """The lines, each as soon as it is known."""
    yield "| backend | stored/s | dense p50 ms | p99 | CPU ms here | hybrid p50 ms | p99 | recall@10 |"
    yield "|---|---|---|---|---|---|---|---|"
    with fresh_cluster() as cluster:
        async with open_database(cluster.dsn("memory"), prepare=register_vector) as database:
            yield await measured("postgres", PostgresMemoryStore(database), texts, vectors)
    yield await measured("in memory, exact", InMemoryStore(), texts, vectors)
    for name, (_, build) in ENGINES.items():
        if installed(name):
            with tempfile.TemporaryDirectory() as folder:
                yield await measured(name, EngineStore(build(Path(folder))), texts, vectors)


async def _print(texts: list[str], vectors: Any) -> None:
    async for line in table(texts, vectors):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=2_000)
    asked = parser.parse_args()
    texts = sentences(asked.size + _ASKED)
    vectors, _ = asyncio.run(embedded(texts))
    asyncio.run(_print(texts, vectors))


if __name__ == "__main__":
    main()
