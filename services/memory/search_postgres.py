"""How Postgres searches: by meaning in pgvector's graph, by words in the inverted index, in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from services.memory.rows import conditions, half, memory_of, width_of
from services.memory.store import Corpus, Filter, Found, Gathered, Memory, Probe, Vector
from services.memory.words import weight
from shared.postgres import Connection, load_queries

_SQL = load_queries(Path(__file__).with_name("queries.sql"))
# Words that more memories hold than this tell little: counting them stops here.
_HOLDING: Final = 5_000
# How many entries of the inverted index one search reads.
_POSTINGS: Final = 12_000

Beside = Mapping[int, Sequence[tuple[int, Found]]]


async def nearest(
    connection: Connection, tenant: str, vector: Vector, chosen: Filter, *, now: datetime, limit: int
) -> Sequence[Found]:
    """By cosine similarity, best first."""
    width = width_of(vector)
    given = (*conditions(tenant, chosen, now), half(vector), limit)
    # Without an iterative scan a filter can leave nothing of what the graph found.
    await connection.execute(_SQL["search_settings"])
    rows = await connection.fetch(_SQL[f"fresh_{width}"], *given)
    if await connection.fetchval(_SQL[f"any_in_graph_{width}"], tenant):
        known = await connection.fetch(_SQL[f"graph_{width}"], *given)
        if len(known) < limit:
            # The walk ended before enough fitted: a narrow filter. Looking at everything is exact.
            rows = await connection.fetch(_SQL[f"exact_{width}"], *given)
        else:
            rows = sorted([*rows, *known], key=lambda row: -row["cosine"])[:limit]
    return [Found(memory_of(row), row["cosine"]) for row in rows]


async def gather(connection: Connection, tenant: str, probe: Probe, chosen: Filter, now: datetime) -> Gathered:
    """The nearest by meaning, the best by words, and what stands around the first of both."""
    near: Sequence[Found] = []
    if probe.vector:
        near = await nearest(connection, tenant, probe.vector, chosen, now=now, limit=probe.limit)
    corpus = await _corpus(connection, tenant, probe.words)
    worded = await _worded(connection, probe, corpus, conditions(tenant, chosen, now))
    known = {one.memory.place: one for one in near}
    missing = [memory for memory in worded if memory.place not in known]
    cosines = await _cosines(connection, tenant, [memory.place for memory in missing], probe.vector)
    pool = [*near, *(Found(memory, cosines.get(memory.place, 0.0)) for memory in missing)]
    first = [one.memory for one in near[: probe.limit // 2]] + list(worded[: probe.limit // 2])
    return Gathered(pool, await _around(connection, tenant, first, probe, chosen.as_of or now), corpus)


async def _corpus(connection: Connection, tenant: str, words: Sequence[str]) -> Corpus:
    row = await connection.fetchrow(_SQL["corpus"], tenant)
    counts = await connection.fetch(_SQL["holding"], tenant, list(words), _HOLDING) if words else []
    memories, total = (row["memories"], row["words"]) if row else (0, 0)
    return Corpus(memories, total / memories if memories else 1.0, {one["word"]: one["holding"] for one in counts})


async def _worded(connection: Connection, probe: Probe, corpus: Corpus, given: tuple[object, ...]) -> Sequence[Memory]:
    asked = _affordable(probe.words, corpus)
    if not asked:
        return []
    weights = [weight(word, corpus) for word in asked]
    sought = (*given, asked, weights, max(corpus.average_length, 1.0), probe.limit)
    rows = await connection.fetch(_SQL["worded"], *sought, probe.limit * 4)
    if len(rows) < probe.limit < sum(corpus.holding[word] for word in asked) // 4:
        # The filter left too few of the best: take all that hold a word.
        rows = await connection.fetch(_SQL["worded"], *sought, None)
    return [memory_of(row) for row in rows]


async def _cosines(connection: Connection, tenant: str, places: Sequence[int], vector: Vector) -> Mapping[int, float]:
    if not places or not vector:
        return {}
    rows = await connection.fetch(_SQL[f"cosines_{width_of(vector)}"], tenant, list(places), half(vector))
    return {row["place"]: row["cosine"] for row in rows}


async def _around(
    connection: Connection, tenant: str, memories: Sequence[Memory], probe: Probe, at: datetime
) -> Beside:
    asked = list({memory.place: memory for memory in memories if memory.session_id}.values())
    beside: dict[int, list[tuple[int, Found]]] = {}
    if not asked or not probe.reach:
        return beside
    rows = await connection.fetch(
        _SQL["around"], tenant, [one.place for one in asked], [one.session_id for one in asked],
        [one.created_at for one in asked], probe.reach, at,
    )  # fmt: skip
    found = {row["place"]: memory_of(row) for row in rows}
    cosines = await _cosines(connection, tenant, list(found), probe.vector)
    for row in rows:
        near = Found(found[row["place"]], cosines.get(row["place"], 0.0))
        beside.setdefault(row["beside"], []).append((row["distance"], near))
    return {place: sorted(near, key=lambda one: one[0]) for place, near in beside.items()}


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
