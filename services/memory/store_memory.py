"""The honest fake: exact search over a list, words counted anew for every question; gone with the process."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import count
from typing import Final

import numpy as np

from services.memory.errors import EmbeddingWidthInvalid, MemoryExists
from services.memory.filters import fits
from services.memory.receipts_memory import InMemoryReceipts
from services.memory.store import (
    BEGINNINGS,
    NEVER,
    SIMILAR,
    WIDTHS,
    Corpus,
    Entry,
    Filter,
    Found,
    Gathered,
    Memory,
    MemoryType,
    Probe,
    Receipt,
    Usage,
    Vector,
    Worded,
)
from services.memory.words import bm25, words_of
from shared.paging import Page

_FIRST: Final = 25  # as the real store does


class InMemoryStore:
    """One list of memories a tenant."""

    def __init__(self, receipts: InMemoryReceipts | None = None) -> None:
        self.receipts = receipts or InMemoryReceipts()
        self._places = count(1)
        self._tenants: dict[str, dict[str, Entry]] = {}
        self._bounds: dict[tuple[str, MemoryType], tuple[int, int]] = {}
        self._used: dict[tuple[str, int], datetime] = {}

    async def add(self, tenant: str, entries: Sequence[Entry], *, now: datetime = NEVER) -> Sequence[Memory]:
        check_widths([entry.vector for entry in entries])
        mine = self._tenants.setdefault(tenant, {})
        wanted = {_identity(entry.memory) for entry in entries}
        for one in [one.memory for one in mine.values() if not _lives(one.memory, now)]:
            if _identity(one) in wanted:
                del mine[one.id]
        known = {_identity(one.memory): one.memory for one in mine.values()}
        stored = []
        for entry in entries:
            if _identity(entry.memory) not in known:
                memory = entry.memory._replace(place=next(self._places))
                mine[memory.id] = Entry(memory, _half(entry.vector), entry.tokens)
                known[_identity(memory)] = memory
            stored.append(known[_identity(entry.memory)])
        return stored

    async def change(self, tenant: str, entry: Entry, *, before: Memory) -> Memory | None:
        check_widths([entry.vector])
        mine = self._tenants.get(tenant, {})
        if not _unchanged(mine, before):
            return None
        for other in [one.memory for one in mine.values() if one.memory.id != before.id]:
            if _identity(other) == _identity(entry.memory):
                if _lives(other, entry.memory.updated_at or NEVER):
                    raise MemoryExists("another memory has this content", memory_id=other.id)
                del mine[other.id]
        mine[before.id] = Entry(entry.memory, _half(entry.vector), entry.tokens)
        return entry.memory

    async def revector(self, tenant: str, entries: Sequence[Entry]) -> int:
        check_widths([entry.vector for entry in entries])
        mine, done = self._tenants.get(tenant, {}), 0
        for entry in entries:
            old = mine.get(entry.memory.id)
            if old and old.memory.updated_at == entry.memory.updated_at:
                renewed = old.memory._replace(embedding_model=entry.memory.embedding_model)
                mine[entry.memory.id] = Entry(renewed, _half(entry.vector), entry.tokens)
                done += 1
        return done

    async def read(self, tenant: str, entries: Sequence[Entry]) -> int:
        mine = self._tenants.get(tenant, {})
        known = [(mine[entry.memory.id], entry) for entry in entries if entry.memory.id in mine]
        same = [(one, entry) for one, entry in known if not one.tokens and _as_read(one.memory, entry.memory)]
        for one, entry in same:
            mine[one.memory.id] = Entry(one.memory, one.vector, entry.tokens)
        return len(same)

    async def find(self, tenant: str, memory_id: str, *, now: datetime) -> Memory | None:
        found = self._tenants.get(tenant, {}).get(memory_id)
        return found.memory if found and _lives(found.memory, now) else None

    async def vector(self, tenant: str, memory_id: str) -> Vector:
        found = self._tenants.get(tenant, {}).get(memory_id)
        return found.vector if found else ()

    async def tokens(self, tenant: str, memory_id: str) -> bytes:
        found = self._tenants.get(tenant, {}).get(memory_id)
        return found.tokens if found else b""

    async def forget(self, tenant: str, memories: Sequence[Memory], receipts: Sequence[Receipt]) -> Collection[str]:
        mine = self._tenants.get(tenant, {})
        gone = {memory.id for memory in memories if _unchanged(mine, memory)}
        for one in gone:
            del mine[one]
        self.receipts.add(tenant, (one for one in receipts if one.subject_id in gone))
        return gone

    async def every(
        self, tenant: str, chosen: Filter, *, now: datetime, newest_first: bool, page: Page
    ) -> Sequence[Memory]:
        mine = sorted((one.memory for one in self._mine(tenant, chosen, now)), key=_time, reverse=newest_first)
        at, last = page.place
        if at is not None:
            seen = (at, last)
            mine = [memory for memory in mine if (_time(memory) < seen if newest_first else _time(memory) > seen)]
        return mine[: page.size + 1]

    async def nearest(
        self, tenant: str, vector: Vector, chosen: Filter, *, now: datetime, limit: int, model: str = ""
    ) -> Sequence[Found]:
        check_widths([vector])
        mine = [one for one in self._mine(tenant, chosen, now) if comparable(one, vector, model)]
        near = _cosines(vector, [one.vector for one in mine])
        found = [Found(one.memory, cosine) for one, cosine in zip(mine, near, strict=True)]
        return sorted(found, key=lambda one: -one.cosine)[:limit]

    async def worded(self, tenant: str, words: Sequence[str], chosen: Filter, *, now: datetime, limit: int) -> Worded:
        corpus = self._corpus(tenant, words)
        mine = [one.memory for one in self._mine(tenant, chosen, now)]
        scored = [(bm25(words_of(one), set(words), corpus), one.place) for one in mine]
        best = sorted((one for one in scored if one[0]), key=lambda one: (-one[0], one[1]))[:limit]
        return Worded([place for _, place in best], corpus)

    async def gather(
        self, tenant: str, probe: Probe, chosen: Filter, *, now: datetime, worded: Worded | None = None
    ) -> Gathered:
        by_words = worded or await self.worded(tenant, probe.words, chosen, now=now, limit=probe.limit)
        near: Sequence[Found] = []
        if probe.vector:
            near = await self.nearest(tenant, probe.vector, chosen, now=now, limit=probe.limit, model=probe.model)
        found = self._placed(by_words.places, self._mine(tenant, chosen, now), probe)
        first = [one.memory for one in (*near[:_FIRST], *found[:_FIRST])]
        pool = list({one.memory.place: one for one in (*found, *near)}.values())
        beside = self._around(tenant, first, probe, chosen.as_of or now)
        tokens = self._tokens(tenant, probe.model, pool, beside) if probe.tokens else {}
        return Gathered(pool, beside, by_words.corpus, tokens)

    def _tokens(
        self, tenant: str, model: str, pool: Sequence[Found], beside: Mapping[int, Sequence[tuple[int, Found]]]
    ) -> dict[int, bytes]:
        mine = self._tenants.get(tenant, {})
        found = [one.memory for one in (*pool, *(one for near in beside.values() for _, one in near))]
        return {one.place: mine[one.id].tokens for one in found if one.embedding_model == model and mine[one.id].tokens}

    def _corpus(self, tenant: str, words: Sequence[str]) -> Corpus:
        texts = [words_of(one.memory) for one in self._tenants.get(tenant, {}).values()]
        length = sum(sum(text.values()) for text in texts) / len(texts) if texts else 1.0
        return Corpus(len(texts), length, {word: sum(word in text for text in texts) for word in words})

    def _placed(self, places: Sequence[int], mine: Sequence[Entry], probe: Probe) -> list[Found]:
        """Those at these places that are there, with their cosines."""
        known = {one.memory.place: one for one in mine}
        found = [known[place] for place in places if place in known]
        cosines = _cosines(probe.vector, [_vector(one, probe) for one in found])
        return [Found(one.memory, cosine) for one, cosine in zip(found, cosines, strict=True)]

    def _around(
        self, tenant: str, memories: Sequence[Memory], probe: Probe, at: datetime
    ) -> dict[int, Sequence[tuple[int, Found]]]:
        sessions: dict[str, list[Entry]] = {}
        for entry in sorted(self._mine(tenant, Filter(), at), key=lambda one: _order(one.memory)):
            sessions.setdefault(entry.memory.session_id, []).append(entry)
        return {
            memory.place: near
            for memory in memories
            if memory.session_id and (near := _beside(sessions[memory.session_id], memory, probe))
        }

    async def similar_words(self, tenant: str, word: str) -> Sequence[str]:
        known = sorted({other for one in self._tenants.get(tenant, {}).values() for other in words_of(one.memory)})
        found: list[str] = []
        for size in BEGINNINGS:
            if len(word) < size or 0 < len(found) < SIMILAR:
                continue
            found += [other for other in known if other.startswith(word[:size]) and other not in found][:SIMILAR]
        return found

    async def tend(self, tenant: str, *, busy: Callable[[], bool]) -> int:
        return 0

    async def usage(self, tenant: str) -> Sequence[Usage]:
        found = []
        for kind in sorted(MemoryType):
            mine = [one.memory for one in self._tenants.get(tenant, {}).values() if one.memory.memory_type is kind]
            bounds = self._bounds.get((tenant, kind), (0, 0))
            oldest = min((memory.created_at for memory in mine), default=None)
            if mine or any(bounds):
                found.append(Usage(kind, len(mine), sum(len(one.content) for one in mine), oldest, *bounds))
        return found

    async def set_retention(self, tenant: str, memory_type: MemoryType, *, max_memories: int, max_days: int) -> None:
        self._bounds[tenant, memory_type] = (max_memories, max_days)

    async def tenants(self) -> Sequence[str]:
        return sorted(self._tenants)

    async def ended(self, tenant: str, *, before: datetime, limit: int) -> Sequence[Memory]:
        mine = (one.memory for one in self._tenants.get(tenant, {}).values())
        ended = [memory for memory in mine if not _lives(memory, before)]
        return sorted(ended, key=lambda memory: memory.expires_at or NEVER)[:limit]

    async def least(self, tenant: str, memory_type: MemoryType, *, limit: int) -> Sequence[Memory]:
        def worth(memory: Memory) -> tuple[float, datetime, int]:
            return memory.importance, self._used.get((tenant, memory.place), memory.created_at), memory.place

        mine = [one.memory for one in self._tenants.get(tenant, {}).values()]
        return sorted((one for one in mine if one.memory_type is memory_type and not one.embedding_set), key=worth)[
            :limit
        ]

    async def outdated(self, tenant: str, model: str, *, reads: bool, limit: int) -> tuple[Sequence[Memory], int]:
        mine = sorted(self._tenants.get(tenant, {}).values(), key=lambda one: one.memory.place)
        old = [one.memory for one in mine if one.memory.embedding_model not in ("", model)]
        if reads:
            own = [one for one in mine if one.memory.embedding_model == model and not one.memory.embedding_set]
            old += [one.memory for one in own if not one.tokens]
        return old[:limit], len(old)

    async def used(self, tenant: str, places: Sequence[int], *, now: datetime) -> None:
        self._used |= {(tenant, place): now for place in places}

    def _mine(self, tenant: str, chosen: Filter, now: datetime) -> list[Entry]:
        at = chosen.as_of or now
        mine = self._tenants.get(tenant, {}).values()
        return [one for one in mine if _lives(one.memory, at) and fits(one.memory, chosen)]


def _as_read(known: Memory, read: Memory) -> bool:
    return (known.updated_at, known.embedding_model) == (read.updated_at, read.embedding_model)


def _beside(session: Sequence[Entry], memory: Memory, probe: Probe) -> list[tuple[int, Found]]:
    """The neighbours of a memory in its session, each with its offset."""
    here = next(at for at, one in enumerate(session) if one.memory.place == memory.place)
    offsets = [n for n in range(-probe.reach, probe.reach + 1) if n and 0 <= here + n < len(session)]
    near = [session[here + offset] for offset in offsets]
    cosines = _cosines(probe.vector, [_vector(one, probe) for one in near])
    return [(offset, Found(one.memory, cosine)) for offset, one, cosine in zip(offsets, near, cosines, strict=True)]


def _identity(memory: Memory) -> tuple[str, str, str, bytes]:
    return memory.embedding_set, memory.agent, memory.memory_type.value, memory.content_hash


def _unchanged(mine: Mapping[str, Entry], before: Memory) -> bool:
    return before.id in mine and mine[before.id].memory.updated_at == before.updated_at


def _lives(memory: Memory, now: datetime) -> bool:
    return memory.expires_at is None or memory.expires_at > now


def _time(memory: Memory) -> tuple[datetime, str]:
    return memory.created_at, memory.id


def _order(memory: Memory) -> tuple[datetime, int]:
    return memory.created_at, memory.place


def comparable(entry: Entry, vector: Vector, model: str) -> bool:
    """Whether both vectors are of one model, as far as is known."""
    return len(entry.vector) == len(vector) and (not model or entry.memory.embedding_model in ("", model))


def _vector(entry: Entry, probe: Probe) -> Vector:
    return entry.vector if comparable(entry, probe.vector, probe.model) else ()


def check_widths(vectors: Iterable[Vector]) -> None:
    """Raises EmbeddingWidthInvalid unless all are of one known width."""
    widths = {len(vector) for vector in vectors}
    if len(widths) != 1 or not widths <= set(WIDTHS):
        width = ", ".join(map(str, sorted(widths)))
        known = ", ".join(map(str, WIDTHS))
        raise EmbeddingWidthInvalid(
            f"no table for embeddings {width} wide; there are {known}", field="embedding", width=width, known=known
        )


def _half(vector: Vector) -> Vector:
    return tuple(np.array(vector, np.float16).astype(float).tolist())


def _cosines(vector: Vector, others: Sequence[Vector]) -> list[float]:
    """0 where there is nothing to compare: no vector, or one of another width."""
    found = [0.0] * len(others)
    alike = [at for at, other in enumerate(others) if len(other) == len(vector)]
    if not vector or not alike:
        return found
    matrix, asked = np.array([others[at] for at in alike]), np.array(vector)
    sizes = np.linalg.norm(matrix, axis=1) * np.linalg.norm(asked)
    cosines = matrix @ asked / np.where(sizes == 0, 1, sizes)
    for at, cosine in zip(alike, cosines.tolist(), strict=True):
        found[at] = cosine
    return found
