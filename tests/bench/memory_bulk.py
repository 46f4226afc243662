"""Many memories into a bench's own Postgres by COPY, and one graph made of all: by way of the service a million takes hours."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import asyncpg
import numpy as np
from pgvector import HalfVector
from pgvector.asyncpg import register_vector

from services.memory.words import stems, tag_word
from shared.ids import RandomIds
from shared.postgres import load_queries

SQL = load_queries(Path(__file__).with_name("memory_latency.sql"))
_COLUMNS: Final = (
    "tenant_id", "id", "place", "agent_name", "embedding", "content", "content_hash", "memory_type", "session_id", "turn_id",
    "tags", "metadata", "importance", "created_at", "in_graph",
)  # fmt: skip
_WORDS: Final = ("tenant_id", "word", "place", "times", "length")
_STEP: Final = 20_000
_NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)


def progress(what: str, done: int, count: int) -> None:
    """One line on standard error: the bench runs for half an hour."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {what}: {done:,} of {count:,}\n")


def grown(texts: Sequence[str], vectors: Any, size: int, *, last: int) -> tuple[list[str], Any]:
    """As many as `size`, where real ones are fewer: what is missing is two real sentences in one, and lies between them,
    nearer the first. The `last` of the real ones are the bench's questions and stay last.
    """
    chance = np.random.default_rng(1)
    first, second = chance.integers(0, len(texts) - last, size=(2, max(size - len(texts), 0)))
    near = chance.uniform(0.55, 0.85, size=(len(first), 1)).astype(np.float32)
    made = np.empty((len(first), vectors.shape[1]), np.float16)
    for at in range(0, len(first), _STEP):
        part = slice(at, at + _STEP)
        mixed = near[part] * vectors[first[part]] + (1 - near[part]) * vectors[second[part]]
        made[part] = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
    told = [f"{texts[one]} {texts[other]} {at}" for at, (one, other) in enumerate(zip(first, second, strict=True))]
    return [*texts[:-last], *told, *texts[-last:]], np.concatenate([vectors[:-last], made, vectors[-last:]])


async def load(dsn: str, tenant: str, texts: Sequence[str], vectors: Any, start: int) -> tuple[float, float]:
    """Adds them to what the tenant has, `dsn` being the superuser's: row level security forbids COPY. Returns the seconds
    of copying, and of making the graph.
    """
    connection = await asyncpg.connect(dsn)
    try:
        await register_vector(connection, schema="public")
        began = time.perf_counter()
        await connection.execute(SQL["forget_graph"])
        await connection.execute(SQL["into_graph"], tenant)
        for at in range(0, len(texts), _STEP):
            await _copy(connection, tenant, texts[at : at + _STEP], vectors[at : at + _STEP], start + at)
            progress("copied", min(at + _STEP, len(texts)), len(texts))
        copied = time.perf_counter()
        progress("in the graph that is being made", 0, start + len(texts))
        await connection.execute(SQL["settings"])
        await connection.execute(SQL["make_graph"])
        await connection.execute(SQL["analyze"])
        return copied - began, time.perf_counter() - copied
    finally:
        await connection.close()


async def _copy(connection: Any, tenant: str, texts: Sequence[str], vectors: Any, start: int) -> None:
    first: int = await connection.fetchval(SQL["places"], len(texts))
    cut = [stems(text) for text in texts]
    rows = [
        (tenant, RandomIds().new("mem"), first + at, "", HalfVector(vectors[at]), text, f"{start + at}".encode(), "semantic",
         f"s{(start + at) // 20}", "", ["rare"] if (start + at) % 100 == 0 else [], "{}", 0.5,
         _NOW - timedelta(minutes=start + at), True)
        for at, text in enumerate(texts)
    ]  # fmt: skip
    copy = connection.copy_records_to_table
    await copy("memory_episode_384", schema_name="memory", records=rows, columns=_COLUMNS)
    await copy("memory_word", schema_name="memory", records=list(_words(tenant, cut, first, start)), columns=_WORDS)
    count = (sum(map(len, texts)), sum(map(len, cut)))
    await connection.execute(SQL["count"], tenant, len(texts), *count)


def _words(tenant: str, cut: Sequence[Sequence[str]], first: int, start: int) -> Iterator[tuple[object, ...]]:
    for at, words in enumerate(cut):
        if (start + at) % 100 == 0:
            yield tenant, tag_word("rare"), first + at, 1, 0
        for word in dict.fromkeys(words):
            yield tenant, word, first + at, words.count(word), len(words)
