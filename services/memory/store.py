"""What recall asks of storage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

from shared.paging import Page

TURNS_HELD: Final = 50

Vector = tuple[float, ...]


class MemoryType(StrEnum):
    EPISODIC = "episodic"
    SEMANTIC = "semantic"
    LONG_TERM = "long_term"


@dataclass(frozen=True, slots=True)
class Memory:
    """One memory. `content_hash` keeps the same content of the same agent and type from being stored twice."""

    id: str
    content: str
    content_hash: bytes
    memory_type: MemoryType
    agent: str
    session_id: str
    turn_id: str
    tags: tuple[str, ...]
    metadata: Mapping[str, object]
    importance: float
    created_at: datetime
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Scored:
    """A memory and its cosine similarity."""

    memory: Memory
    score: float


@dataclass(frozen=True, slots=True)
class Filter:
    """Which memories. Empty and None mean all."""

    agent: str = ""
    types: tuple[MemoryType, ...] = ()
    tags: tuple[str, ...] = ()
    start: datetime | None = None
    end: datetime | None = None
    not_session: str = ""


@dataclass(frozen=True, slots=True)
class ShortTermTurn:
    """One turn of a session's tail."""

    turn_id: str
    agent: str
    content: str


class MemoryStore(Protocol):
    """Where memories are kept. Memories that have ended are never returned."""

    async def add(self, tenant: str, memory: Memory, vector: Vector) -> Memory:
        """Stores a memory, or returns the one with the same content."""

    async def find(self, tenant: str, memory_id: str, *, now: datetime) -> Memory | None:
        """One memory."""

    async def forget(self, tenant: str, memory_id: str) -> bool:
        """Deletes for good; False when it was not there."""

    async def every(
        self, tenant: str, chosen: Filter, *, now: datetime, newest_first: bool, page: Page
    ) -> Sequence[Memory]:
        """By time, at most `page.size` + 1. The cursor is (time, id) of the last one seen."""

    async def nearest(
        self, tenant: str, vector: Vector, chosen: Filter, *, now: datetime, min_score: float, limit: int
    ) -> Sequence[Scored]:
        """By cosine similarity, best first, among memories of the vector's width."""

    async def append_turn(self, tenant: str, session_id: str, turn: ShortTermTurn, *, now: datetime) -> int:
        """Appends once; the oldest beyond TURNS_HELD make room. Returns how many are held."""

    async def tail(self, tenant: str, session_id: str, *, limit: int) -> Sequence[ShortTermTurn]:
        """The last turns, oldest first."""
