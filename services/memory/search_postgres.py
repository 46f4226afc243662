"""How Postgres searches: by meaning in pgvector's graph, by words in the inverted index, in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Final

from services.memory.common import CommonWords
from services.memory.rows import conditions, found_of, half, queries, width_of
from services.memory.store import WIDTHS, Corpus, Filter, Found, Gathered, Probe, Vector, Worded
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
        given = (*conditions(tenant, chosen, now), half(vector), limit, model)
        async with self._database.transaction() as connection:
            search = _Search(connection, width_of(vector), await self._begun(connection, tenant), given)
            return found_of(await search.nearest())

    async def worded(self, tenant: str, words: Sequence[str], chosen: Filter, *, now: datetime, limit: int) -> Worded:
        """The best by words."""
        asked = list(dict.fromkeys(words))
        known = self._common.known(tenant, asked, now)
        given = (*conditions(tenant, chosen, now), limit, asked, known, _HOLDING, _POSTINGS)
        async with self._database.transaction() as connection:
            query = _of_part("worded", await self._begun(connection, tenant))
            (told,) = await connection.fetch(query, *given, limit * _SPARE)
            if len(told["places"]) < limit < (told["entries"] or 0) // _SPARE:
                # The filter left too few of the best: try all that hold a word.
                (told,) = await connection.fetch(query, *given, None)
            corpus = _corpus(told, asked)
        self._common.note(tenant, corpus.holding.items(), now)
        return Worded(told["places"], corpus)

    async def gather(self, tenant: str, probe: Probe, chosen: Filter, *, now: datetime, worded: Worded) -> Gathered:
        """The nearest by meaning, the best by words, and what stands around the first of both."""
        width = width_of(probe.vector) if probe.vector else WIDTHS[0]
        vector = half(probe.vector) if probe.vector else None
        given = (*conditions(tenant, chosen, now), vector, probe.limit, probe.model)
        async with self._database.transaction() as connection:
            search = _Search(connection, width, await self._begun(connection, tenant), given)
            rows = await search.gathered(worded.places, probe.reach, probe.tokens)
        told = rows[0]
        found = {} if told["place"] is None else {one.memory.place: one for one in found_of(rows)}
        fitting = {row["place"] for row in rows if row["fitting"]}
        pool = [found[place] for place in dict.fromkeys((*told["near"], *worded.places)) if place in fitting]
        tokens = {row["place"]: row["tokens"] for row in rows if row["tokens"]}
        return Gathered(pool, _lines(told, found), worded.corpus, tokens)

    async def _begun(self, connection: Connection, tenant: str) -> int:
        """Sets the transaction up and tells the tenant's partition."""
        await connection.execute(_SQL["searching"], tenant)
        if tenant not in self._parts:
            if len(self._parts) >= _REMEMBERED:
                self._parts.clear()
            self._parts[tenant] = await connection.fetchval(_SQL["partition"], tenant)
        return self._parts[tenant]


@dataclass(frozen=True, slots=True)
class _Search:
    """One search in its transaction. `given` begins all its queries: the filter, the vector, limit, model."""

    connection: Connection
    width: int
    part: int
    given: tuple[Any, ...]

    async def nearest(self) -> Sequence[Any]:
        """Rows, the nearest first."""
        rows = await self._compared()
        if rows is None:
            rows = await self._fetched("nearest")
            if not rows or (rows[0]["graphed"] and sum(row["in_graph"] for row in rows) < self._limit):
                rows = await self._exact()
        return sorted(rows, key=lambda row: -row["cosine"])[: self._limit]

    async def gathered(self, worded: Sequence[int], reach: int, tokens: bool) -> Sequence[Any]:
        """What ranking needs, in one statement unless a filter leaves too little; the first row tells of the others."""
        around = (worded, reach, _FIRST, tokens)
        rows: Sequence[Any] = ()
        compared = [] if self.given[15] is None else await self._compared()
        if compared is None:
            rows = await self._fetched("gather", *around)
            told = rows[0]
            if not told["near"] or (told["graphed"] and told["walked"] < self._limit):
                compared = await self._exact()
        if compared is not None:
            places = [row["place"] for row in compared]
            await self.connection.execute(_SQL["searching_once"])
            rows = await self._fetched("gather_given", *around, places)
        return rows

    @property
    def _limit(self) -> int:
        limit: int = self.given[16]
        return limit

    async def _compared(self) -> Sequence[Any] | None:
        """What comparing one by one finds; None where a graph is to be walked."""
        # One session or turn is few memories: the graph would be walked to its end in vain.
        if self.width not in GRAPHS or self.given[7] or self.given[11]:
            return await self._exact()
        tag = await self._rare_tag()
        return None if tag is None else await self._fetched("tagged", tag)

    async def _exact(self) -> Sequence[Any]:
        """No graph, a narrow filter, or a walk that ended before enough fitted. Looking at everything is exact."""
        await self.connection.execute(_SQL["searching_all"])
        return await self._fetched("exact")

    async def _rare_tag(self) -> str | None:
        """The tag of the filter that fewest have, as the index has it; None where all of them are common."""
        tags = self.given[4]
        if not tags or self.given[14]:
            return None
        words = [tag_word(tag) for tag in tags]
        found: str | None = await self.connection.fetchval(
            _of_part("rarest_tag", self.part), self.given[0], words, _TAGGED
        )
        return found

    async def _fetched(self, name: str, *more: object) -> Sequence[Any]:
        return await self.connection.fetch(_of_part(f"{name}_{self.width}", self.part), *self.given, *more)


@cache
def _of_part(name: str, part: int) -> str:
    return _SQL[name].replace(":part", str(part))


def _corpus(told: Any, words: Sequence[str]) -> Corpus:
    memories = told["memories"]
    length = told["words"] / memories if memories else 1.0
    return Corpus(memories, length, dict(zip(words, told["holding"], strict=True)))


def _lines(told: Any, found: Mapping[int, Found]) -> dict[int, list[tuple[int, Found]]]:
    """By place: the neighbours, each with its offset, in their order."""
    lines: dict[int, list[tuple[int, Found]]] = {}
    rows = (told["besides"] or (), told["distances"] or (), told["neighbours"] or ())
    for place, distance, neighbour in zip(*rows, strict=True):
        lines.setdefault(place, []).append((distance, found[neighbour]))
    return lines
