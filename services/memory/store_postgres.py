"""The real store: the schema `memory`, with pgvector for meaning and an inverted index of its own for words."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from services.memory import gently
from services.memory import words as cutting
from services.memory.errors import EmbeddingWidthInvalid, MemoryExists
from services.memory.receipts_postgres import add_receipts
from services.memory.rows import conditions, half, memory_of, queries, width_of
from services.memory.search_postgres import GRAPHS, PostgresSearch
from services.memory.store import (
    BEGINNINGS,
    NEVER,
    SIMILAR,
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
from shared.paging import Page
from shared.postgres import Connection, Database

_SQL = queries()
# A tenant keeps this many out of the graph: comparing them all takes a millisecond or two.
_FRESH: Final = 4_000
# While a bulk is stored so many wait, because what Postgres takes for the graph is what storing lacks.
_LATE: Final = 10_000
_TENDED: Final = 250
_SMALLINT: Final = 32_767
_ESCAPED: Final = re.compile(r'["\\]')


class PostgresMemoryStore:
    """One table a width of embedding, sixteen partitions each."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._search = PostgresSearch(database)

    async def add(self, tenant: str, entries: Sequence[Entry], *, now: datetime = NEVER) -> Sequence[Memory]:
        width = width_of(entries[0].vector)
        # One order for all writers: two batches with the same contents wait for each other, never in a circle.
        ordered = sorted(entries, key=lambda entry: entry.memory.content_hash)
        # Cut once, before the transaction, which holds what others wait for.
        await gently.each(lambda entry: cutting.words_of(entry.memory), ordered)
        async with self._database.tenant(tenant) as connection:
            places, known = await _stored(connection, tenant, width, ordered)
            if ended := [one for one in known.values() if one.expires_at and one.expires_at <= now]:
                await _forgotten(connection, tenant, ended)
                left = [entry for entry in ordered if entry.memory.id not in places]
                more, known = await _stored(connection, tenant, width, left)
                places |= more
            added = [entry for entry in ordered if entry.memory.id in places]
            await _insert_words(connection, tenant, [(places[one.memory.id], one.memory) for one in added], "add_words")
            await _count(connection, tenant, [one.memory for one in added], sign=1)
        return [
            _placed(memory, places[memory.id]) if memory.id in places else known[_identity(memory)]
            for memory in (entry.memory for entry in entries)
        ]

    async def change(self, tenant: str, entry: Entry, *, before: Memory) -> Memory | None:
        async with self._database.tenant(tenant) as connection:
            if not await _taken(connection, tenant, [before]):
                return None
            width = width_of(entry.vector)
            for other in (await _stored(connection, tenant, width, [entry]))[1].values():
                if not other.expires_at or other.expires_at > (entry.memory.updated_at or NEVER):
                    raise MemoryExists("another memory has this content", memory_id=other.id)
                await _forgotten(connection, tenant, [other])
                await _insert(connection, tenant, width, [entry])
            await _insert_words(connection, tenant, [(entry.memory.place, entry.memory)], "renew_words")
            await _count(connection, tenant, [entry.memory], sign=1)
        return entry.memory

    async def revector(self, tenant: str, entries: Sequence[Entry]) -> int:
        vectors = {entry.memory.id: entry for entry in entries}
        times = [entry.memory.updated_at for entry in entries]
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(_SQL["take"], tenant, list(vectors), times)
            renewed = [_renewed(memory_of(row), vectors[row["id"]]) for row in rows]
            for width, many in _by_width(renewed).items():
                await _insert(connection, tenant, width, many)
        return len(rows)

    async def read(self, tenant: str, entries: Sequence[Entry]) -> int:
        done = 0
        async with self._database.tenant(tenant) as connection:
            for width, many in _by_width(entries).items():
                given = [(one.memory.id, one.memory.updated_at, one.memory.embedding_model, one.tokens) for one in many]
                answer = await connection.execute(_SQL[f"read_{width}"], tenant, *map(list, zip(*given, strict=True)))
                done += int(answer.rpartition(" ")[2])
        return done

    async def find(self, tenant: str, memory_id: str, *, now: datetime) -> Memory | None:
        async with self._database.tenant(tenant) as connection:
            row = await connection.fetchrow(_SQL["find"], tenant, memory_id, now)
        return memory_of(row) if row else None

    async def vector(self, tenant: str, memory_id: str) -> Vector:
        async with self._database.tenant(tenant) as connection:
            found = await connection.fetchval(_SQL["vector"], tenant, memory_id)
        return tuple(found or ())

    async def tokens(self, tenant: str, memory_id: str) -> bytes:
        async with self._database.tenant(tenant) as connection:
            found: bytes | None = await connection.fetchval(_SQL["tokens_of"], tenant, memory_id)
        return found or b""

    async def forget(self, tenant: str, memories: Sequence[Memory], receipts: Sequence[Receipt]) -> Collection[str]:
        async with self._database.tenant(tenant) as connection:
            gone = await _forgotten(connection, tenant, memories)
            await add_receipts(connection, tenant, [one for one in receipts if one.subject_id in gone])
        return gone

    async def every(
        self, tenant: str, chosen: Filter, *, now: datetime, newest_first: bool, page: Page
    ) -> Sequence[Memory]:
        seen = page.place
        query = _SQL["newest" if newest_first else "oldest"]
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(query, *conditions(tenant, chosen, now), *seen, page.size + 1)
        return [memory_of(row) for row in rows]

    async def nearest(
        self, tenant: str, vector: Vector, chosen: Filter, *, now: datetime, limit: int, model: str = ""
    ) -> Sequence[Found]:
        return await self._search.nearest(tenant, vector, chosen, now=now, limit=limit, model=model)

    async def worded(self, tenant: str, words: Sequence[str], chosen: Filter, *, now: datetime, limit: int) -> Worded:
        return await self._search.worded(tenant, words, chosen, now=now, limit=limit)

    async def gather(
        self, tenant: str, probe: Probe, chosen: Filter, *, now: datetime, worded: Worded | None = None
    ) -> Gathered:
        found = worded or await self.worded(tenant, probe.words, chosen, now=now, limit=probe.limit)
        return await self._search.gather(tenant, probe, chosen, now=now, worded=found)

    async def similar_words(self, tenant: str, word: str) -> Sequence[str]:
        found: dict[str, None] = {}
        async with self._database.tenant(tenant) as connection:
            for size in BEGINNINGS:
                if len(word) < size or 0 < len(found) < SIMILAR:
                    continue
                start, end = word[:size], word[: size - 1] + chr(ord(word[size - 1]) + 1)
                rows = await connection.fetch(_SQL["similar_words"], tenant, start, end)
                found |= dict.fromkeys(row["word"] for row in rows)
        return list(found)

    async def tend(self, tenant: str, *, busy: Callable[[], bool]) -> int:
        moved = 0
        for width in GRAPHS:
            moved += await self._into_graph(tenant, width, busy)
        if moved:
            async with self._database.transaction() as connection:
                await connection.execute(_SQL["analyze"])
        return moved

    async def _into_graph(self, tenant: str, width: int, busy: Callable[[], bool]) -> int:
        """All, once it is begun, unless a bulk begins; in short transactions, so that nobody waits long for a row."""
        moved = 0
        while True:
            spare = _LATE if busy() else 0 if moved else _FRESH
            async with self._database.tenant(tenant) as connection:
                waiting = await connection.fetchval(_SQL[f"not_in_graph_{width}"], tenant, spare + 1)
                if waiting <= spare:
                    return moved
                done = await connection.execute(_SQL[f"into_graph_{width}"], tenant, _TENDED)
            count = int(done.rpartition(" ")[2])
            if not count:
                # Another replica has them in hand.
                return moved
            moved += count

    async def usage(self, tenant: str) -> Sequence[Usage]:
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(_SQL["usage"], tenant)
        return [Usage(**{**row, "memory_type": MemoryType(row["memory_type"])}) for row in rows]

    async def set_retention(self, tenant: str, memory_type: MemoryType, *, max_memories: int, max_days: int) -> None:
        async with self._database.tenant(tenant) as connection:
            await connection.execute(_SQL["set_retention"], tenant, memory_type.value, max_memories, max_days)

    async def tenants(self) -> Sequence[str]:
        async with self._database.transaction() as connection:
            return [row["tenant"] for row in await connection.fetch(_SQL["tenants"])]

    async def ended(self, tenant: str, *, before: datetime, limit: int) -> Sequence[Memory]:
        async with self._database.tenant(tenant) as connection:
            return [memory_of(row) for row in await connection.fetch(_SQL["ended"], tenant, before, limit)]

    async def least(self, tenant: str, memory_type: MemoryType, *, limit: int) -> Sequence[Memory]:
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(_SQL["least"], tenant, memory_type.value, limit)
        return [memory_of(row) for row in rows]

    async def outdated(self, tenant: str, model: str, *, reads: bool, limit: int) -> tuple[Sequence[Memory], int]:
        rows, count = list[Any](), 0
        async with self._database.tenant(tenant) as connection:
            for query in ("outdated", "unread") if reads else ("outdated",):
                count += await connection.fetchval(_SQL[f"count_{query}"], tenant, model)
                if len(rows) < limit:
                    rows += await connection.fetch(_SQL[query], tenant, model, limit - len(rows))
        return [memory_of(row) for row in rows], count

    async def used(self, tenant: str, places: Sequence[int], *, now: datetime) -> None:
        async with self._database.tenant(tenant) as connection:
            await connection.execute(_SQL["used"], tenant, sorted(set(places)), now)


async def _stored(
    connection: Connection, tenant: str, width: int, entries: Sequence[Entry]
) -> tuple[dict[str, int], dict[tuple[str, str, str, bytes], Memory]]:
    """The places of those that are stored now, by id, and what was there in the place of the others, by identity."""
    places = await _insert(connection, tenant, width, entries)
    return places, await _same(connection, tenant, [one.memory for one in entries if one.memory.id not in places])


async def _insert(connection: Connection, tenant: str, width: int, entries: Sequence[Entry]) -> dict[str, int]:
    """The places of those that were not there yet, by id."""
    given = zip(*(_row(entry, width) for entry in entries), strict=True)
    rows = await connection.fetch(_SQL[f"add_{width}"], tenant, *map(list, given))
    places = {row["id"]: row["place"] for row in rows}
    tokens = [
        (places[one.memory.id], one.memory.embedding_model, one.tokens)
        for one in entries
        if one.tokens and one.memory.id in places
    ]
    if tokens:
        await connection.execute(_SQL["add_tokens"], tenant, *map(list, zip(*tokens, strict=True)))
    return places


def _renewed(memory: Memory, entry: Entry) -> Entry:
    return Entry(memory._replace(embedding_model=entry.memory.embedding_model), entry.vector, entry.tokens)


def _by_width(entries: Sequence[Entry]) -> dict[int, list[Entry]]:
    found: dict[int, list[Entry]] = {}
    for entry in entries:
        found.setdefault(width_of(entry.vector), []).append(entry)
    return found


def _row(entry: Entry, width: int) -> tuple[object, ...]:
    memory = entry.memory
    if len(entry.vector) != width:
        raise EmbeddingWidthInvalid("all vectors of a batch must be equally wide", width=str(len(entry.vector)))
    return (
        memory.place or None, memory.id, memory.agent, half(entry.vector), memory.embedding_model,
        memory.embedding_set, memory.content, memory.content_hash, memory.memory_type.value, memory.session_id,
        memory.turn_id, json.dumps(memory.tags), dict(memory.metadata), memory.importance, memory.policy_version,
        memory.created_at, memory.updated_at, memory.expires_at,
    )  # fmt: skip


async def _same(
    connection: Connection, tenant: str, memories: Sequence[Memory]
) -> dict[tuple[str, str, str, bytes], Memory]:
    """What is stored with the content of these, by identity."""
    if not memories:
        return {}
    wanted = [list(part) for part in zip(*map(_identity, memories), strict=True)]
    rows = await connection.fetch(_SQL["same"], tenant, *wanted)
    return {_identity(memory): memory for memory in map(memory_of, rows)}


async def _insert_words(
    connection: Connection, tenant: str, placed: Sequence[tuple[int, Memory]], query: str
) -> None:  # fmt: skip
    filed = [
        (
            place, min(sum(cutting.words_of(memory).values()), _SMALLINT), _array(words),
            _array(str(min(times, _SMALLINT)) for times in words.values()),
        )
        for place, memory in placed if (words := cutting.filed_under(memory))
    ]  # fmt: skip
    if filed:
        await connection.execute(_SQL[query], tenant, *(list(part) for part in zip(*filed, strict=True)))


def _array(words: Iterable[str]) -> str:
    """As Postgres writes an array: one text is sent in a fraction of the time of its parts."""
    written = '","'.join(word if word.isalnum() else _ESCAPED.sub(r"\\\g<0>", word) for word in words)
    return f'{{"{written}"}}'


async def _count(connection: Connection, tenant: str, memories: Sequence[Memory], *, sign: int) -> None:
    """Last in every transaction that writes, and in one order: the tenant's row is held for a moment only."""
    for kind in sorted({memory.memory_type for memory in memories}):
        mine = [memory for memory in memories if memory.memory_type is kind]
        characters = sum(len(memory.content) for memory in mine)
        words = sum(sum(cutting.words_of(memory).values()) for memory in mine)
        await connection.execute(_SQL["count"], tenant, kind.value, sign * len(mine), sign * characters, sign * words)


async def _forgotten(connection: Connection, tenant: str, memories: Sequence[Memory]) -> set[str]:
    """The ids of those that were there, as they were read."""
    gone = await _taken(connection, tenant, memories)
    await connection.execute(_SQL["forget_use"], tenant, [memory.place for memory in gone])
    return {memory.id for memory in gone}


async def _taken(connection: Connection, tenant: str, memories: Sequence[Memory]) -> list[Memory]:
    """Takes out, words and count too, those that were there as they were read."""
    times = [memory.updated_at for memory in memories]
    rows = await connection.fetch(_SQL["take"], tenant, [memory.id for memory in memories], times)
    gone = [memory_of(row) for row in rows]
    cut = [(word, memory.place) for memory in gone for word in cutting.filed_under(memory)]
    if cut:
        await connection.execute(_SQL["delete_words"], tenant, *(list(part) for part in zip(*cut, strict=True)))
    await connection.execute(
        _SQL["delete_moved_words"], tenant, [memory.content for memory in gone], [memory.place for memory in gone]
    )
    await _count(connection, tenant, gone, sign=-1)
    return gone


def _identity(memory: Memory) -> tuple[str, str, str, bytes]:
    return memory.embedding_set, memory.agent, memory.memory_type.value, memory.content_hash


def _placed(memory: Memory, place: int) -> Memory:
    return memory._replace(place=place)
