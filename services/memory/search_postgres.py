"""How Postgres searches: by meaning in pgvector's graph, by words in the inverted index, in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Final

from services.memory.common import CommonWords
from services.memory.rows import conditions, half, memory_of, queries, width_of
from services.memory.store import WIDTHS, Corpus, Filter, Found, Gathered, Memory, Probe, Vector
from services.memory.words import tag_word
from shared.postgres import Connection, Database

_SQL = queries()
# Widths that have a graph; migrations make them.
GRAPHS: Final = (384, 768, 1024, 1536, 3072)
# Words that more memories hold than this tell little: counting them stops here.
_HOLDING: Final = 5_000
# How many entries of the inverted index one search reads.
_POSTINGS: Final = 4_000
# How many times as many as are wanted the filter may choose from before all are tried.
_SPARE: Final = 2
# What has a tag that at most so many have is compared one by one, which is exact.
_TAGGED: Final = 4_000
# Of how many by meaning and by words the neighbours are looked at.
_FIRST: Final = 25
_REMEMBERED: Final = 10_000


class PostgresSearch:
    """Searches one tenant's partition by its own name, so that what Postgres plans once serves every search after."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._parts: dict[str, int] = {}
        self._common = CommonWords()

    async def nearest(
        self, tenant: str, vector: Vector, chosen: Filter, *, now: datetime, limit: int, model: str
    ) -> Sequence[Found]:
        """By cosine similarity, best first."""
        width = width_of(vector)
        async with self._database.transaction() as connection:
            at = (width, await self._begun(connection, tenant))
            return await _nearest(connection, at, (*conditions(tenant, chosen, now), half(vector), limit, model))

    async def gather(self, tenant: str, probe: Probe, chosen: Filter, now: datetime) -> Gathered:
        """The nearest by meaning, the best by words, and what stands around the first of both."""
        width = width_of(probe.vector) if probe.vector else WIDTHS[0]
        given = (*conditions(tenant, chosen, now), half(probe.vector) if probe.vector else None)
        async with self._database.transaction() as connection:
            at = (width, await self._begun(connection, tenant))
            worded, corpus = await self._worded(connection, at, probe, (*given, probe.model), now)
            near = await _nearest(connection, at, (*given, probe.limit, probe.model)) if probe.vector else []
            pool = {one.memory.place: one for one in (*near, *worded)}
            first = {one.memory.place: one.memory for one in (*near[:_FIRST], *worded[:_FIRST])}
            beside = await _around(connection, at, probe, list(first.values()), given, pool=pool)
        return Gathered(list(pool.values()), beside, corpus)

    async def _worded(
        self, connection: Connection, at: tuple[int, int], probe: Probe, given: tuple[object, ...], now: datetime
    ) -> tuple[Sequence[Found], Corpus]:
        """The best by words, and what is known of the words."""
        tenant: Any = given[0]
        words = list(dict.fromkeys(probe.words))
        query = _of_part(f"worded_{at[0]}", at[1])
        sought = (*given, words, self._common.known(tenant, words, now), _HOLDING, _POSTINGS)
        rows = await connection.fetch(query, *sought, probe.limit * _SPARE, probe.limit)
        told = rows[0]
        found = _placed(rows)
        if len(found) < probe.limit < (told["entries"] or 0) // _SPARE:
            # The filter left too few of the best: try all that hold a word.
            found = _placed(await connection.fetch(query, *sought, None, probe.limit))
        holding = dict(zip(words, told["holding"], strict=True))
        self._common.note(tenant, holding.items(), now)
        memories = told["memories"]
        length = told["words"] / memories if memories else 1.0
        return found, Corpus(memories, length, holding)

    async def _begun(self, connection: Connection, tenant: str) -> int:
        """Sets the transaction up and tells the tenant's partition."""
        await connection.execute(_SQL["searching"], tenant)
        if tenant not in self._parts:
            if len(self._parts) >= _REMEMBERED:
                self._parts.clear()
            self._parts[tenant] = await connection.fetchval(_SQL["partition"], tenant)
        return self._parts[tenant]


@cache
def _of_part(name: str, part: int) -> str:
    return _SQL[name].replace(":part", str(part))


async def _nearest(connection: Connection, at: tuple[int, int], given: tuple[object, ...]) -> Sequence[Found]:
    width, part = at
    limit: Any = given[16]
    # One session or turn is few memories: the graph would be walked to its end in vain.
    few = given[7] or given[11]
    if not few and (tag := await _rare_tag(connection, part, given)):
        return _found(await connection.fetch(_of_part(f"tagged_{width}", part), *given, tag))
    if width in GRAPHS and not few:
        rows = await connection.fetch(_of_part(f"nearest_{width}", part), *given)
        if rows and (not rows[0]["graphed"] or sum(row["in_graph"] for row in rows) >= limit):
            return _found(sorted(rows, key=lambda row: -row["cosine"])[:limit])
    # No graph, a narrow filter, or a walk that ended before enough fitted. Looking at everything is exact.
    await connection.execute(_SQL["searching_all"])
    return _found(await connection.fetch(_of_part(f"exact_{width}", part), *given))


async def _rare_tag(connection: Connection, part: int, given: tuple[object, ...]) -> str | None:
    """The tag of the filter that fewest have, as the index has it; None where all of them are common."""
    tags: Any = given[4]
    if not tags or given[14]:
        return None
    words = [tag_word(tag) for tag in tags]
    found: str | None = await connection.fetchval(_of_part("rarest_tag", part), given[0], words, _TAGGED)
    return found


async def _around(
    connection: Connection,
    at: tuple[int, int],
    probe: Probe,
    first: Sequence[Memory],
    given: tuple[object, ...],
    *,
    pool: Mapping[int, Found],
) -> dict[int, list[tuple[int, Found]]]:
    """By place: the neighbours, each with its offset, in their order."""
    asked = [one for one in first if one.session_id]
    if not asked or not probe.reach:
        return {}
    tenant, now = given[:2]
    rows = await connection.fetch(
        _of_part(f"around_{at[0]}", at[1]), tenant, [one.place for one in asked], [one.session_id for one in asked],
        [one.created_at for one in asked], probe.reach, now, given[15], probe.model,
    )  # fmt: skip
    others = {row["place"]: row for row in rows if row["place"] not in pool}
    made = {**pool, **dict(zip(others, _found(others.values()), strict=True))}
    lines: dict[int, list[tuple[int, Found]]] = {}
    for row in sorted(rows, key=lambda row: row["distance"]):
        lines.setdefault(row["beside"], []).append((row["distance"], made[row["place"]]))
    return lines


def _placed(rows: Sequence[Any]) -> list[Found]:
    return _found(row for row in rows if row["place"] is not None)


def _found(rows: Iterable[Any]) -> list[Found]:
    return [Found(memory_of(row), row["cosine"] or 0.0) for row in rows]
