"""Recalling: by meaning and words, ranked, with what stands around."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from services.memory import rank
from services.memory.embed import Embedder
from services.memory.errors import EmbeddingUnavailable
from services.memory.filters import fits
from services.memory.policy import MemoryPolicy
from services.memory.rank import Ranked, Taste
from services.memory.rerank import SecondLook
from services.memory.store import (
    Corpus,
    Embedding,
    Filter,
    Found,
    Gathered,
    Memory,
    MemoryStore,
    Probe,
    Vector,
    Worded,
)
from services.memory.texts import Reading, query_words
from services.memory.used import Used
from services.memory.words import meant, mended
from shared.clock import Clock
from shared.log import log

DEFAULT_MIN_SCORE: Final = 0.25
# Candidates of each kind: enough for a good order of a hundred, few enough to rank in a millisecond or two.
_POOL: Final = 60
_REACH: Final = 1
_PROMISING: Final = 0.5


@dataclass(frozen=True, slots=True)
class Question:
    """What to look for and how. `min_score` None: near in meaning, or found by words."""

    query: str
    chosen: Filter
    limit: int
    by_meaning: bool = True
    by_words: bool = True
    min_score: float | None = None
    taste: Taste = field(default_factory=Taste)
    neighbours: int = 0
    vector: Vector = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """The matches, best first, and by place what stands around each. Degraded: words alone decided. Policy has
    withheld some.
    """

    matches: Sequence[Ranked]
    around: Mapping[int, Sequence[Memory]]
    degraded: bool = False
    withheld: int = 0


class Recall:
    """What is read from memory by asking, one tenant a call."""

    def __init__(
        self, store: MemoryStore, embedder: Embedder, used: Used, *, policy: MemoryPolicy, clock: Clock,
        second_look: SecondLook | None = None,
    ) -> None:  # fmt: skip
        self._policy = policy
        self._second_look = second_look
        self._store = store
        self._embedder = embedder
        self._used = used
        self._clock = clock

    async def recall(self, tenant: str, asked: Question) -> Answer:
        """Raises PolicyUnavailable, and EmbeddingUnavailable when only meaning may decide and no vector can be had."""
        now = self._clock.now()
        limit = max(_POOL, asked.limit * 2)
        # What the words find is looked for while the vector is made.
        ((vector, tokens), degraded), (query, worded) = await asyncio.gather(
            self._embedding(asked), self._by_words(tenant, asked, limit, now)
        )
        reach = max(_REACH, asked.neighbours)
        probe = Probe(vector, (), limit, reach, self._embedder.model, bool(tokens))
        gathered = await self._store.gather(tenant, probe, asked.chosen, now=now, worded=worded)
        reading = Reading(query, gathered, tokens)
        fitting = _fitting(gathered, reading, asked, degraded=degraded)
        found = await self._ranked(query, fitting, reading, asked, now=asked.chosen.as_of or now)
        self._used.note(tenant, [one.memory.place for one in found])
        around = {one.memory.place: _beside(gathered, one.memory, asked) for one in found} if asked.neighbours else {}
        shown, near, withheld = self._policy.shown(tenant, asked.chosen.agent, found, around)
        return Answer(shown, near, degraded, withheld)

    def told(self, tenant: str, agent: str, text: str) -> str | None:
        """What another cluster found, as policy lets it be shown here; None: not at all. Raises PolicyUnavailable."""
        return self._policy.told(tenant, agent, text)

    async def _ranked(
        self, query: str, fitting: Gathered, reading: Reading, asked: Question, *, now: datetime
    ) -> list[Ranked]:
        if self._second_look is None:
            return rank.ranked(query, fitting, asked.taste, now=now, limit=asked.limit, reading=reading)
        plain = replace(asked.taste, diversity=0.0)
        found = rank.ranked(query, fitting, plain, now=now, limit=len(fitting.pool), reading=reading)
        seen = await self._second_look.reordered(query, found, least=asked.limit)
        return rank.diverse(seen, asked.taste.diversity, asked.limit)

    async def _embedding(self, asked: Question) -> tuple[Embedding, bool]:
        """What the model makes of the query, and whether that is missing though it was wanted."""
        if asked.vector or not asked.by_meaning:
            return Embedding(asked.vector if asked.by_meaning else ()), False
        try:
            (embedding,) = await self._embedder.embed([asked.query], query=True)
        except EmbeddingUnavailable as error:
            if not asked.by_words:
                raise
            log.warning("recall.degraded", why=error.facts.get("why", ""))
            return Embedding(()), True
        return embedding, False

    async def _by_words(self, tenant: str, asked: Question, limit: int, now: datetime) -> tuple[str, Worded]:
        """The query, with what its misspelt words may have meant, and what its words find."""
        words = query_words(asked.query) if asked.by_words else ()
        worded = await self._store.worded(tenant, words, asked.chosen, now=now, limit=limit)
        slips = await self._slips(tenant, worded.corpus, words)
        if not slips:
            return asked.query, worded
        meant = [slips.get(word, word) for word in words]
        worded = await self._store.worded(tenant, meant, asked.chosen, now=now, limit=limit)
        return mended(asked.query, slips), worded

    async def _slips(self, tenant: str, corpus: Corpus, words: Sequence[str]) -> dict[str, str]:
        """What words nobody ever wrote here may have meant."""
        unknown = [word for word in words if not corpus.holding.get(word) and not word.isdigit()]
        if not corpus.memories:
            return {}
        near = {word: meant(word, await self._store.similar_words(tenant, word)) for word in unknown[:4]}
        return {word: other for word, other in near.items() if other}


def _fitting(gathered: Gathered, reading: Reading, asked: Question, *, degraded: bool) -> Gathered:
    """The candidates and their neighbours, as far as they fit the filter and are near enough."""
    by_meaning = asked.by_meaning and not degraded
    pool = [one for one in gathered.pool if not by_meaning or _near(one, reading, asked)]
    near = replace(gathered, pool=pool)
    if not (by_meaning and asked.by_words):
        return near
    return rank.with_neighbours(near, lambda one: fits(one.memory, asked.chosen) and _near(one, reading, asked))


def _near(found: Found, reading: Reading, asked: Question) -> bool:
    """Near enough in meaning; by default a memory is that too if it holds half of what the question's words weigh."""
    if asked.min_score is not None:
        return found.cosine >= asked.min_score
    if found.cosine >= DEFAULT_MIN_SCORE:
        return True
    return asked.by_words and reading.coverage(found) >= _PROMISING


def _beside(gathered: Gathered, memory: Memory, asked: Question) -> list[Memory]:
    """The turns around a match, from the line of turns that knows most of them."""
    known = {one.memory.place: one for one in gathered.pool}
    most: list[tuple[int, Memory]] = []
    for place, near in gathered.beside.items():
        line = [*near, (0, known[place])] if place in known else list(near)
        at = next((offset for offset, one in line if one.memory.place == memory.place), None)
        if at is not None:
            close = [(offset, one.memory) for offset, one in line if 0 < abs(offset - at) <= asked.neighbours]
            most = max(most, close, key=len)
    return [one for _, one in sorted(most, key=lambda found: found[0]) if _existed(one, asked.chosen)]


def _existed(memory: Memory, chosen: Filter) -> bool:
    return chosen.as_of is None or memory.created_at <= chosen.as_of
