"""Remembering and recalling."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from services.memory.embed import Embedder
from services.memory.errors import EmbeddingUnavailable, MemoryNotFound
from services.memory.store import Filter, Memory, MemoryStore, MemoryType, Scored, ShortTermTurn
from shared.clock import Clock
from shared.ids import Ids
from shared.log import log
from shared.paging import Page

DEFAULT_MIN_SCORE: Final = 0.25
_CONTEXT_TYPES: Final = (MemoryType.EPISODIC, MemoryType.SEMANTIC, MemoryType.LONG_TERM)


@dataclass(frozen=True, slots=True)
class NewMemory:
    """What to remember."""

    content: str
    memory_type: MemoryType
    agent: str = ""
    session_id: str = ""
    turn_id: str = ""
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, object] | None = None
    importance: float = 0.5
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Need:
    """Who is about to speak, about what."""

    session_id: str
    agent: str
    query: str
    max_turns: int
    max_matches: int


@dataclass(frozen=True, slots=True)
class TurnContext:
    """What an agent should be given to know. Degraded: search was not possible."""

    tail: Sequence[ShortTermTurn]
    found: Sequence[Scored]
    degraded: bool


class Recall:
    """The memories of all tenants, one tenant a call."""

    def __init__(self, store: MemoryStore, embedder: Embedder, *, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._embedder = embedder
        self._clock = clock
        self._ids = ids

    async def remember(self, tenant: str, new: NewMemory) -> tuple[Memory, bool]:
        """The memory, and whether it is new. Raises EmbeddingUnavailable."""
        memory = Memory(
            id=self._ids.new("mem"),
            content=new.content,
            content_hash=hashlib.sha256(new.content.encode()).digest(),
            memory_type=new.memory_type,
            agent=new.agent,
            session_id=new.session_id,
            turn_id=new.turn_id,
            tags=new.tags,
            metadata=new.metadata or {},
            importance=new.importance,
            created_at=self._clock.now(),
            expires_at=new.expires_at,
        )
        stored = await self._store.add(tenant, memory, await self._embedder.embed(new.content))
        return stored, stored.id == memory.id

    async def find(self, tenant: str, memory_id: str) -> Memory:
        """Raises MemoryNotFound."""
        memory = await self._store.find(tenant, memory_id, now=self._clock.now())
        if memory is None:
            raise MemoryNotFound(f"no memory {memory_id}", memory_id=memory_id)
        return memory

    async def forget(self, tenant: str, memory_id: str) -> datetime:
        """When it was deleted. Raises MemoryNotFound."""
        if not await self._store.forget(tenant, memory_id):
            raise MemoryNotFound(f"no memory {memory_id}", memory_id=memory_id)
        return self._clock.now()

    async def every(self, tenant: str, chosen: Filter, *, newest_first: bool, page: Page) -> Sequence[Memory]:
        """By time."""
        return await self._store.every(tenant, chosen, now=self._clock.now(), newest_first=newest_first, page=page)

    async def recall(
        self, tenant: str, query: str, chosen: Filter, *, min_score: float, limit: int
    ) -> Sequence[Scored]:
        """By meaning, best first. Raises EmbeddingUnavailable."""
        vector = await self._embedder.embed(query)
        return await self._store.nearest(
            tenant, vector, chosen, now=self._clock.now(), min_score=min_score, limit=limit
        )

    async def append(self, tenant: str, session_id: str, turn: ShortTermTurn, *, remember: bool) -> int:
        """Keeps a finished turn in the tail, and as an episode when asked. Returns the length of the tail.

        Raises EmbeddingUnavailable after the tail was kept; appending again is safe.
        """
        held = await self._store.append_turn(tenant, session_id, turn, now=self._clock.now())
        if remember and turn.content.strip():
            episode = NewMemory(turn.content, MemoryType.EPISODIC, turn.agent, session_id, turn.turn_id)
            await self.remember(tenant, episode)
        return held

    async def context(self, tenant: str, need: Need) -> TurnContext:
        """The tail, and what fits the question from elsewhere. Search being away is no reason to know nothing."""
        tail = await self._store.tail(tenant, need.session_id, limit=need.max_turns)
        if not need.query:
            return TurnContext(tail, [], degraded=False)
        chosen = Filter(agent=need.agent, types=_CONTEXT_TYPES, not_session=need.session_id)
        try:
            found = await self.recall(tenant, need.query, chosen, min_score=DEFAULT_MIN_SCORE, limit=need.max_matches)
        except EmbeddingUnavailable as error:
            log.warning("context.degraded", why=error.facts.get("why", ""))
            return TurnContext(tail, [], degraded=True)
        return TurnContext(tail, found, degraded=False)
