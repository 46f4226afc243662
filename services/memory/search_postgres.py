"""How Postgres searches: by meaning in pgvector's graph, by words in the inverted index, in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, Final

from services.memory.rows import conditions, half, memory_of, queries, width_of
from services.memory.store import WIDTHS, Corpus, Filter, Found, Gathered, Memory, Probe, Vector
from services.memory.words import weight
from shared.postgres import Connection

_SQL = queries()
# Words that more memories hold than this tell little: counting them stops here.
_HOLDING: Final = 5_000
# How many entries of the inverted index one search reads.
_POSTINGS: Final = 12_000
# Of how many by meaning and by words the neighbours are looked at.
_FIRST: Final = 25


async def nearest(
    connection: Connection, tenant: str, vector: Vector, chosen: Filter, *, now: datetime, limit: int, model: str
) -> Sequence[Found]:
    """By cosine similarity, best first."""
    standing = await _standing(connection, tenant, width_of(vector))
    return await _nearest(connection, standing, vector, conditions(tenant, chosen, now), limit=limit, model=model)


async def gather(connection: Connection, tenant: str, probe: Probe, chosen: Filter, now: datetime) -> Gathered:
    """The nearest by meaning, the best by words, and what stands around the first of both."""
    standing = await _standing(connection, tenant, width_of(probe.vector) if probe.vector else WIDTHS[0])
    given = conditions(tenant, chosen, now)
    near: Sequence[Found] = []
    if probe.vector:
        near = await _nearest(connection, standing, probe.vector, given, limit=probe.limit, model=probe.model)
    corpus = await _corpus(connection, tenant, standing, probe.words)
    worded = await _worded(connection, probe, corpus, given)
    first = [one.memory for one in near[:_FIRST]] + list(worded[:_FIRST])
    around = await _around(connection, tenant, first, probe, chosen.as_of or now)
    cosines = {one.memory.place: one.cosine for one in near}
    others = [memory.place for memory in worded] + [memory.place for line in around.values() for _, memory in line]
    cosines |= await _cosines(connection, tenant, sorted({*others} - cosines.keys()), probe)
    pool = {memory.place: memory for memory in (*(one.memory for one in near), *worded)}
    return Gathered(
        [Found(memory, cosines.get(place, 0.0)) for place, memory in pool.items()],
        {
            place: [(offset, Found(memory, cosines.get(memory.place, 0.0))) for offset, memory in line]
            for place, line in around.items()
        },
        corpus,
    )


async def _standing(connection: Connection, tenant: str, width: int) -> Any:
    """How much the tenant keeps. Also sets the transaction up: without an iterative scan a filter can leave nothing of
    what the graph found.
    """
    return await connection.fetchrow(_SQL[f"standing_{width}"], tenant)


async def _nearest(
    connection: Connection, standing: Any, vector: Vector, given: tuple[object, ...], *, limit: int, model: str
) -> Sequence[Found]:
    width = width_of(vector)
    sought = (*given, half(vector), limit, model)
    rows = await connection.fetch(_SQL[f"fresh_{width}"], *sought)
    if standing["in_graph"]:
        await connection.execute(_SQL["prefer_graph"])
        known = await connection.fetch(_SQL[f"graph_{width}"], *sought)
        if len(known) < limit:
            # The walk ended before enough fitted: a narrow filter. Looking at everything is exact.
            rows = await connection.fetch(_SQL[f"exact_{width}"], *sought)
        else:
            rows = sorted([*rows, *known], key=lambda row: -row["cosine"])[:limit]
    return [Found(memory_of(row), row["cosine"]) for row in rows]


async def _corpus(connection: Connection, tenant: str, standing: Any, words: Sequence[str]) -> Corpus:
    counts = await connection.fetch(_SQL["holding"], tenant, list(words), _HOLDING) if words else []
    memories = standing["memories"]
    length = standing["words"] / memories if memories else 1.0
    return Corpus(memories, length, {one["word"]: one["holding"] for one in counts})


async def _worded(connection: Connection, probe: Probe, corpus: Corpus, given: tuple[object, ...]) -> Sequence[Memory]:
    asked = _affordable(probe.words, corpus)
    if not asked:
        return []
    weights = [weight(word, corpus) for word in asked]
    sought = (given[0], asked, weights, max(corpus.average_length, 1.0))
    best = await connection.fetch(_SQL["scored"], *sought, probe.limit * 2)
    found = await _placed(connection, given, best, limit=probe.limit)
    if len(found) < probe.limit < sum(corpus.holding[word] for word in asked) // 2:
        # The filter left too few of the best: take all that hold a word.
        every = await connection.fetch(_SQL["scored"], *sought, None)
        found = await _placed(connection, given, every, limit=probe.limit)
    return found


async def _placed(
    connection: Connection, given: tuple[object, ...], scored: Sequence[Any], *, limit: int
) -> list[Memory]:
    """The first memories at these places that fit, in the order given."""
    order = [row["place"] for row in scored]
    rows = {row["place"]: row for row in await connection.fetch(_SQL["placed"], *given, order)}
    return [memory_of(rows[place]) for place in islice((place for place in order if place in rows), limit)]


async def _cosines(connection: Connection, tenant: str, places: Sequence[int], probe: Probe) -> Mapping[int, float]:
    if not places or not probe.vector:
        return {}
    query = _SQL[f"cosines_{width_of(probe.vector)}"]
    rows = await connection.fetch(query, tenant, list(places), half(probe.vector), probe.model)
    return {row["place"]: row["cosine"] for row in rows}


async def _around(
    connection: Connection, tenant: str, memories: Sequence[Memory], probe: Probe, at: datetime
) -> dict[int, list[tuple[int, Memory]]]:
    """By place: the neighbours, each with its offset, in their order."""
    asked = list({memory.place: memory for memory in memories if memory.session_id}.values())
    if not asked or not probe.reach:
        return {}
    rows = await connection.fetch(
        _SQL["around"], tenant, [one.place for one in asked], [one.session_id for one in asked],
        [one.created_at for one in asked], probe.reach, at,
    )  # fmt: skip
    made = {place: memory_of(row) for place, row in {row["place"]: row for row in rows}.items()}
    lines: dict[int, list[tuple[int, Memory]]] = {}
    for row in sorted(rows, key=lambda row: row["distance"]):
        lines.setdefault(row["beside"], []).append((row["distance"], made[row["place"]]))
    return lines


def _affordable(words: Sequence[str], corpus: Corpus) -> list[str]:
    """The rarest words, as many as can be read in the time of a search; always the rarest one."""
    known = sorted((corpus.holding[word], word) for word in set(words) if corpus.holding.get(word))
    left = _POSTINGS
    chosen: list[str] = []
    for holding, word in known:
        if chosen and holding > left:
            break
        chosen.append(word)
        left -= holding
    return chosen
