"""Storing, changing and forgetting."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from typing import Final, TypeAlias, TypeVar

from services.memory import gently
from services.memory.closely import WIDTH
from services.memory.embed import Embedder
from services.memory.errors import MemoryNotFound
from services.memory.policy import MemoryPolicy
from services.memory.store import NEVER, Embedding, Entry, Filter, Memory, MemoryStore, MemoryType, Receipt, Vector
from services.memory.upkeep import Limits
from shared.clock import Clock
from shared.errors import InvalidArgument
from shared.ids import Ids
from shared.paging import Page

FORGET_AT_ONCE: Final = 1_000
# No two changes of a memory are of the same instant: it tells one from the other.
_LATER: Final = timedelta(microseconds=1)
_NO_TOKEN: Final = bytes(WIDTH)
# What nobody waits for is embedded by so many: a question waits for those before it.
_A_FEW: Final = 8


@dataclass(frozen=True, slots=True)
class NewMemory:
    """What to remember. A vector that is given is not made anew; `happened_at` None means now."""

    content: str
    memory_type: MemoryType
    agent: str = ""
    session_id: str = ""
    turn_id: str = ""
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, object] | None = None
    importance: float = 0.5
    expires_at: datetime | None = None
    policy_version: str = ""
    vector: Vector = ()
    happened_at: datetime | None = None
    embedding_set: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """New values of a memory; None leaves a value as it is."""

    content: str | None = None
    tags: tuple[str, ...] | None = None
    metadata: Mapping[str, object] | None = None
    importance: float | None = None
    expires_at: datetime | None = None
    forever: bool = False


_Given = TypeVar("_Given", NewMemory, Change)
# A tag of an agent's as it may be kept.
Tag: TypeAlias = Callable[[str, str], str]


def embedded_text(memory: Memory) -> str:
    """What the vector of a memory is made from: in an episode, who spoke is part of what was said."""
    spoken = memory.agent and memory.memory_type is MemoryType.EPISODIC
    return f"{memory.agent}: {memory.content}" if spoken else memory.content


class Remembering:
    """What is written to memory, one tenant a call."""

    def __init__(
        self, store: MemoryStore, embedder: Embedder, limits: Limits, *, policy: MemoryPolicy, clock: Clock, ids: Ids
    ) -> None:
        self._policy = policy
        self._store = store
        self._embedder = embedder
        self._limits = limits
        self._clock = clock
        self._ids = ids

    async def remember(self, tenant: str, new: NewMemory) -> tuple[Memory, bool]:
        """The memory, and whether it is new. Raises EmbeddingUnavailable, MemoryFull and PolicyBlocked."""
        (stored,) = await self.remember_many(tenant, [new])
        return stored

    async def remember_many(self, tenant: str, many: Sequence[NewMemory]) -> list[tuple[Memory, bool]]:
        """All of them or none, in their order, each with whether it is new.

        Raises EmbeddingUnavailable, MemoryFull and PolicyBlocked.
        """
        tag = self._judging_tags(tenant)
        memories = await gently.each(lambda new: self._memory(self._allowed(tenant, new, tag)), many)
        await self._limits.admit(tenant, len(many), [(new.agent, new.session_id) for new in many])
        embeddings = [Embedding(new.vector) for new in many]
        if not all(one.vector for one in embeddings):
            embeddings = await self._embedder.embed([embedded_text(memory) for memory in memories])
            # The model's name is known from its answer on.
            memories = [memory._replace(embedding_model=self._embedder.model) for memory in memories]
        entries = [_entry(memory, embedding) for memory, embedding in zip(memories, embeddings, strict=True)]
        stored = await self._store.add(tenant, entries, now=self._clock.now())
        return [(kept, kept.id == memory.id) for kept, memory in zip(stored, memories, strict=True)]

    async def update(self, tenant: str, memory_id: str, change: Change) -> Memory:
        """Raises MemoryNotFound, MemoryExists, EmbeddingUnavailable and PolicyBlocked."""
        before = await self.find(tenant, memory_id)
        bundles = ""
        if not before.embedding_set:
            change = self._judged(tenant, before.agent, change, self._judging_tags(tenant))
            if change.content is not None:
                content, bundles = self._policy.kept(tenant, before.agent, change.content, field="content")
                change = replace(change, content=content)
        while (changed := await self._changed(tenant, before, change, bundles)) is None:
            # Somebody changed it meanwhile: nothing of that may be lost.
            before = await self.find(tenant, memory_id)
        return changed

    async def _changed(self, tenant: str, before: Memory, change: Change, bundles: str) -> Memory | None:
        """None when it is no longer as it was read."""
        if change.expires_at and change.expires_at <= before.created_at:
            raise InvalidArgument("expire_time must be after create_time", field="memory.expire_time")
        after = before._replace(
            content=before.content if change.content is None else change.content,
            content_hash=before.content_hash if change.content is None else _hash(change.content),
            tags=before.tags if change.tags is None else change.tags,
            metadata=before.metadata if change.metadata is None else change.metadata,
            importance=before.importance if change.importance is None else change.importance,
            expires_at=None if change.forever else change.expires_at or before.expires_at,
            updated_at=max(self._clock.now(), (before.updated_at or before.created_at) + _LATER),
            policy_version=bundles or before.policy_version,
        )
        if after.content == before.content:
            vector = await self._store.vector(tenant, before.id)
            tokens = await self._store.tokens(tenant, before.id)
        else:
            ((vector, tokens),) = await self._embedder.embed([embedded_text(after)])
            after = after._replace(embedding_model=self._embedder.model)
        return await self._store.change(tenant, Entry(after, vector, tokens), before=before) if vector else None

    async def reembed(self, tenant: str, *, limit: int) -> tuple[int, int]:
        """How many got vectors of the model of now, and how many still lack them. Raises EmbeddingUnavailable."""
        # The model's name, and whether it reads tokens, are known from its first answer on.
        (known,) = await self._embedder.embed(["word"])
        model = self._embedder.model
        old, count = await self._store.outdated(tenant, model, reads=bool(known.tokens), limit=limit)
        both = [pair for at in range(0, len(old), _A_FEW) for pair in await self._embedded(old[at : at + _A_FEW])]
        others = [_entry(one._replace(embedding_model=model), new) for one, new in both if one.embedding_model != model]
        # A text without tokens is marked as read, or it would remain for ever.
        own = [Entry(one, new.vector, new.tokens or _NO_TOKEN) for one, new in both if one.embedding_model == model]
        done = await self._store.revector(tenant, others) if others else 0
        done += await self._store.read(tenant, own) if own else 0
        return done, count - done

    async def _embedded(self, memories: Sequence[Memory]) -> list[tuple[Memory, Embedding]]:
        embeddings = await self._embedder.embed([embedded_text(memory) for memory in memories])
        return list(zip(memories, embeddings, strict=True))

    async def find(self, tenant: str, memory_id: str, *, now: datetime | None = None) -> Memory:
        """As it lasts `now` or then. Raises MemoryNotFound."""
        memory = await self._store.find(tenant, memory_id, now=now or self._clock.now())
        if memory is None:
            raise _missing(memory_id)
        return memory

    async def read(self, tenant: str, memory_id: str) -> Memory:
        """As policy lets it be read. Raises MemoryNotFound and PolicyUnavailable."""
        return self._readable(tenant, await self.find(tenant, memory_id))

    async def listed(self, tenant: str, chosen: Filter, *, newest_first: bool, page: Page) -> list[Memory]:
        """By time, each as policy lets it be read. Raises PolicyUnavailable."""
        found = await self.every(tenant, chosen, newest_first=newest_first, page=page)
        return [self._readable(tenant, memory) for memory in found]

    async def vector(self, tenant: str, memory_id: str) -> Vector:
        """As it is kept; empty when the memory is gone."""
        return await self._store.vector(tenant, memory_id)

    async def every(
        self, tenant: str, chosen: Filter, *, newest_first: bool, page: Page, now: datetime | None = None
    ) -> Sequence[Memory]:
        """By time, those that last `now` or then."""
        now = now or self._clock.now()
        return await self._store.every(tenant, chosen, now=now, newest_first=newest_first, page=page)

    async def forget(self, tenant: str, memory: Memory, *, requested_by: str) -> Receipt:
        """The proof of the deletion, of the memory as it was at last. Raises MemoryNotFound."""
        while not await self._forget(tenant, [memory], [receipt := self._receipt(memory, requested_by)]):
            memory = await self.find(tenant, memory.id, now=NEVER)
        return receipt

    async def forget_all(self, tenant: str, memories: Sequence[Memory], *, requested_by: str) -> list[Receipt]:
        """The proofs, of those that are still as they were read."""
        receipts = [self._receipt(memory, requested_by) for memory in memories]
        gone = await self._forget(tenant, memories, receipts) if memories else ()
        return [one for one in receipts if one.subject_id in gone]

    async def _forget(self, tenant: str, memories: Sequence[Memory], receipts: Sequence[Receipt]) -> Collection[str]:
        gone = await self._store.forget(tenant, memories, receipts)
        self._limits.freed(tenant)
        return gone

    def _readable(self, tenant: str, memory: Memory) -> Memory:
        """Without its content where that may not be part of a prompt."""
        if memory.embedding_set:
            return memory
        return self._policy.readable(tenant, memory)

    def _receipt(self, memory: Memory, requested_by: str) -> Receipt:
        return Receipt(self._ids.new("rct"), memory.id, memory.content_hash, requested_by, self._clock.now())

    def _judging_tags(self, tenant: str) -> Tag:
        """A tag of an agent's as policy lets it be kept: many of a batch have the same, which is judged once."""
        return cache(lambda agent, tag: self._policy.kept(tenant, agent, tag, field="tags")[0])

    def _allowed(self, tenant: str, new: NewMemory, tag: Tag) -> NewMemory:
        """As policy lets it be kept. Texts of an embedding set are what policy itself compares with."""
        if new.embedding_set:
            return new
        content, bundles = self._policy.kept(tenant, new.agent, new.content, field="content")
        return self._judged(
            tenant, new.agent, new, tag, content=content, policy_version=new.policy_version or bundles
        )  # fmt: skip

    def _judged(self, tenant: str, agent: str, given: _Given, tag: Tag, **changed: object) -> _Given:
        """With tags and metadata as policy lets them be kept, and what else is changed."""
        if given.tags:
            changed["tags"] = tuple(tag(agent, one) for one in given.tags)
        if given.metadata:
            changed["metadata"] = self._policy.noted(tenant, agent, given.metadata, field="metadata")
        return replace(given, **changed) if changed else given  # type: ignore[arg-type] # fields of either kind

    def _memory(self, new: NewMemory) -> Memory:
        return Memory(
            id=self._ids.new("mem"),
            content=new.content,
            content_hash=_hash(new.content),
            memory_type=new.memory_type,
            agent=new.agent,
            session_id=new.session_id,
            turn_id=new.turn_id,
            tags=new.tags,
            metadata=new.metadata or {},
            importance=new.importance,
            created_at=new.happened_at or self._clock.now(),
            expires_at=new.expires_at,
            policy_version=new.policy_version,
            embedding_set=new.embedding_set,
        )


def _entry(memory: Memory, embedding: Embedding) -> Entry:
    """Texts of an embedding set are compared by their vectors alone."""
    return Entry(memory, embedding.vector, b"" if memory.embedding_set else embedding.tokens)


def _hash(content: str) -> bytes:
    return hashlib.sha256(content.encode()).digest()


def _missing(memory_id: str) -> MemoryNotFound:
    return MemoryNotFound(f"no memory {memory_id}", memory_id=memory_id)
