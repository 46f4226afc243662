"""What the tests of memory are made of: memories, vectors, and an embedder that needs no model."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from services.memory.errors import EmbeddingUnavailable
from services.memory.store import Embedding, Entry, Memory, MemoryType, Vector
from services.memory.words import stems
from shared.ids import RandomIds

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def memory(content: str, **more: Any) -> Memory:
    """A memory with an id of its own."""
    made = Memory(
        id=RandomIds().new("mem"), content=content, content_hash=hashlib.sha256(content.encode()).digest(),
        memory_type=MemoryType.SEMANTIC, agent="", session_id="", turn_id="", tags=(), metadata={}, importance=0.5,
        created_at=NOW,
    )  # fmt: skip
    return made._replace(**more)


def vector(x: float, y: float = 0.0) -> Vector:
    """A direction in a plane."""
    return (x, y, *[0.0] * 382)


def entry(content: str, x: float = 1.0, y: float = 0.0, **more: Any) -> Entry:
    return Entry(memory(content, **more), vector(x, y))


@dataclass(slots=True)
class HashingEmbedder:
    """Texts that share words are near. `away` says inference does not answer; `calls` counts texts; `meanwhile` happens
    once, while a text is embedded.
    """

    away: bool = False
    calls: list[str] = field(default_factory=list)
    model: str = "hashing"
    width: int = 384
    meanwhile: Callable[[], Awaitable[object]] | None = None

    async def embed(self, texts: Sequence[str], *, query: bool = False) -> list[Embedding]:
        if self.away:
            raise EmbeddingUnavailable("away", dependency="inference", why="DEPENDENCY_UNAVAILABLE")
        self.calls += texts
        if happening := self.meanwhile:
            self.meanwhile = None
            await happening()
        return [Embedding(_hashed(text, self.width)) for text in texts]


def _hashed(text: str, width: int) -> Vector:
    values = [1e-3] * width
    for word in stems(text):
        values[int(hashlib.sha256(word.encode()).hexdigest(), 16) % width] += 1
    size = math.sqrt(sum(value * value for value in values))
    return tuple(value / size for value in values)
