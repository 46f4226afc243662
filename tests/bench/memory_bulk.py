"""Many memories into a bench's own Postgres by COPY, and one graph made of all: by way of the service a million takes hours."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import asyncpg
import numpy as np
from pgvector import HalfVector
from pgvector.asyncpg import register_vector

from services.inference.embeddings.late import MODEL
from services.memory.words import stems, tag_word
from shared.ids import RandomIds
from shared.postgres import load_queries

SQL = load_queries(Path(__file__).with_name("memory_latency.sql"))
_COLUMNS: Final = (
    "tenant_id", "id", "place", "agent_name", "embedding", "content", "content_hash", "memory_type", "session_id", "turn_id",
    "tags", "metadata", "importance", "created_at", "in_graph", "embedding_model",
)  # fmt: skip
_WORDS: Final = ("tenant_id", "word", "place", "times", "length")
_STEP: Final = 20_000
_TOKENS: Final = 6_144  # bytes a memory
_NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)


def progress(what: str, done: int, count: int) -> None:
    """One line on standard error: the bench runs for half an hour."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {what}: {done:,} of {count:,}\n")


@dataclass(frozen=True, slots=True)
class Sentences:
    """Texts with their vectors, a row each, and those of their tokens."""

    texts: list[str]
    vectors: Any
    tokens: Sequence[bytes]

    def part(self, start: int, end: int) -> Sentences:
        return Sentences(self.texts[start:end], self.vectors[start:end], self.tokens[start:end])


class _Grown(Sequence[bytes]):
    """The tokens of two texts in one, made when they are asked for: of a million they are gigabytes."""

    def __init__(self, tokens: Sequence[bytes], pairs: Sequence[tuple[int, ...]]) -> None:
        self._tokens = tokens
        self._pairs = pairs

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return _Grown(self._tokens, self._pairs[at])
        return b"".join(self._tokens[one] for one in self._pairs[at])[:_TOKENS]


def keep(known: Sentences, path: Path) -> None:
    """Writes them, to be read by `kept`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = np.array([len(one) for one in known.tokens])
    tokens = np.frombuffer(b"".join(known.tokens), np.uint8)
    np.savez(path, texts=np.array(known.texts), vectors=known.vectors, sizes=sizes, tokens=tokens)


def kept(path: Path) -> Sentences:
    """What `keep` wrote."""
    found = np.load(path)
    whole, ends = found["tokens"].tobytes(), np.cumsum(found["sizes"]).tolist()
    tokens = [whole[start:end] for start, end in pairwise([0, *ends])]
    return Sentences(found["texts"].tolist(), found["vectors"], tokens)


def grown(known: Sentences, size: int, *, last: int) -> Sentences:
    """As many as `size`, where real ones are fewer: what is missing is two real sentences in one, and lies between them,
    nearer the first. The `last` of the real ones are the bench's questions and stay last.
    """
    texts, vectors = known.texts, known.vectors
    chance = np.random.default_rng(1)
    first, second = chance.integers(0, len(texts) - last, size=(2, max(size - len(texts), 0)))
    near = chance.uniform(0.55, 0.85, size=(len(first), 1)).astype(np.float32)
    made = np.empty((len(first), vectors.shape[1]), np.float16)
    for at in range(0, len(first), _STEP):
        part = slice(at, at + _STEP)
        mixed = near[part] * vectors[first[part]] + (1 - near[part]) * vectors[second[part]]
        made[part] = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
    told = [f"{texts[one]} {texts[other]} {at}" for at, (one, other) in enumerate(zip(first, second, strict=True))]
    real, asked = [(at,) for at in range(len(texts) - last)], [(at,) for at in range(len(texts) - last, len(texts))]
    tokens = _Grown(known.tokens, [*real, *zip(first.tolist(), second.tolist(), strict=True), *asked])
    return Sentences(
        [*texts[:-last], *told, *texts[-last:]], np.concatenate([vectors[:-last], made, vectors[-last:]]), tokens
    )


async def load(dsn: str, tenant: str, known: Sentences, start: int) -> tuple[float, float]:
    """Adds them to what the tenant has, `dsn` being the superuser's: row level security forbids COPY. Returns the seconds
    of copying, and of making the graph.
    """
    connection = await asyncpg.connect(dsn)
    try:
        await register_vector(connection, schema="public")
        began = time.perf_counter()
        await connection.execute(SQL["forget_graph"])
        await connection.execute(SQL["into_graph"], tenant)
        count = len(known.texts)
        for at in range(0, count, _STEP):
            await _copy(connection, tenant, known.part(at, at + _STEP), start + at)
            progress("copied", min(at + _STEP, count), count)
        copied = time.perf_counter()
        progress("in the graph that is being made", 0, start + count)
        await connection.execute(SQL["settings"])
        await connection.execute(SQL["make_graph"])
        await connection.execute(SQL["analyze"])
        return copied - began, time.perf_counter() - copied
    finally:
        await connection.close()


async def _copy(connection: Any, tenant: str, known: Sentences, start: int) -> None:
    texts = known.texts
    first: int = await connection.fetchval(SQL["places"], len(texts))
    cut = [stems(text) for text in texts]
    rows = [
        (tenant, RandomIds().new("mem"), first + at, "", HalfVector(known.vectors[at]), text, f"{start + at}".encode(), "semantic",
         f"s{(start + at) // 20}", "", ["rare"] if (start + at) % 100 == 0 else [], "{}", 0.5,
         _NOW - timedelta(minutes=start + at), True, MODEL)
        for at, text in enumerate(texts)
    ]  # fmt: skip
    copy = connection.copy_records_to_table
    await copy("memory_episode_384", schema_name="memory", records=rows, columns=_COLUMNS)
    await copy("memory_word", schema_name="memory", records=list(_words(tenant, cut, first, start)), columns=_WORDS)
    tokens = [(tenant, first + at, MODEL, one) for at, one in enumerate(known.tokens)]
    await copy("memory_tokens", schema_name="memory", records=tokens, columns=("tenant_id", "place", "model", "tokens"))
    count = (sum(map(len, texts)), sum(map(len, cut)))
    await connection.execute(SQL["count"], tenant, len(texts), *count)


def _words(tenant: str, cut: Sequence[Sequence[str]], first: int, start: int) -> Iterator[tuple[object, ...]]:
    for at, words in enumerate(cut):
        if (start + at) % 100 == 0:
            yield tenant, tag_word("rare"), first + at, 1, 0
        for word in dict.fromkeys(words):
            yield tenant, word, first + at, words.count(word), len(words)
