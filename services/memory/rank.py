"""In which order found memories help most: every sign of relevance a number, the numbers added up with weights."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.memory.cues import Cues, cues_of
from services.memory.store import Corpus, Found, Gathered, Memory
from services.memory.words import LENGTH, SATURATION, bm25, counted, stems, weight

Floats = NDArray[np.float64]

# Learned from questions whose evidence is known; tests/bench/memory_evidence.py --learn writes them.
LEARNED: Final[Mapping[str, float]] = json.loads(Path(__file__).with_name("weights.json").read_text())
_NO_WORDS: Final[Mapping[str, int]] = {}
# Of how many times as many as are wanted diversity may choose.
_CHOICE: Final = 4


@dataclass(frozen=True, slots=True)
class Taste:
    """What the caller wants beyond relevance. A half-life of None: age does not count."""

    half_life: timedelta | None = None
    importance_weight: float = 0.0
    diversity: float = 0.0


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a relevance came about: the parts add up to the logarithm of its odds, then time and importance weigh in."""

    parts: Mapping[str, float]
    cosine: float
    bm25: float
    matched: tuple[str, ...]
    recency: float
    importance: float


@dataclass(frozen=True, slots=True)
class Ranked:
    """A memory, how near it is in meaning and how relevant it is in all, 0 to 1."""

    memory: Memory
    score: float
    relevance: float
    explanation: Explanation


@dataclass(slots=True)
class _Row:
    """A candidate and what stands right before and after it."""

    found: Found
    before: Found | None = None
    after: Found | None = None


def query_words(query: str) -> tuple[str, ...]:
    """The words to look for, each once, in their order."""
    return tuple(dict.fromkeys(stems(query)))


def ranked(
    query: str, gathered: Gathered, taste: Taste, *, now: datetime, limit: int, weights: Mapping[str, float] = LEARNED
) -> list[Ranked]:
    """The candidates that help most, best first, with how that came about."""
    rows = _rows(gathered)
    if not rows:
        return []
    names, values = parts(query, gathered.corpus, rows)
    shares = values * np.array([weights.get(name, 0.0) for name in names])
    odds = shares.sum(axis=1) + weights["base"]
    recency = np.array([_recency(row.found.memory, taste.half_life, now) for row in rows])
    weighing = np.array([1 + taste.importance_weight * (row.found.memory.importance - 0.5) for row in rows])
    relevance = np.minimum(recency * weighing / (1 + np.exp(-odds)), 1.0)
    order = np.argsort(-relevance, kind="stable")[: limit * _CHOICE if taste.diversity else limit]
    words = query_words(query)
    best = [
        Ranked(rows[at].found.memory, rows[at].found.cosine, float(relevance[at]),
               _explanation(names, shares[at], rows[at].found, words=words, corpus=gathered.corpus,
                            recency=float(recency[at])))
        for at in order
    ]  # fmt: skip
    return diverse(best, taste.diversity, limit)


def diverse(found: Sequence[Ranked], diversity: float, limit: int) -> list[Ranked]:
    """The first of them; with diversity, each the best that differs from those before it (marginal relevance)."""
    if not diversity:
        return list(found[:limit])
    texts = [counted(one.memory.content) for one in found]
    alike = [0.0] * len(found)
    left = list(range(len(found)))
    chosen: list[int] = []
    while left and len(chosen) < limit:
        best = max(left, key=lambda at: (1 - diversity) * found[at].relevance - diversity * alike[at])
        chosen.append(best)
        left.remove(best)
        for at in left:
            alike[at] = max(alike[at], _overlap(texts[at], texts[best]))
    return [found[at] for at in chosen]


def coverage(query: str, memory: Memory, corpus: Corpus) -> float:
    """The share of what the question's words weigh that the memory holds."""
    words = query_words(query)
    text = counted(memory.content)
    total = sum(weight(word, corpus) for word in words)
    return sum(weight(word, corpus) for word in words if word in text) / total if total else 0.0


def with_neighbours(gathered: Gathered, eligible: Callable[[Found], bool]) -> Gathered:
    """With the turns right before and after the first candidates too: an answer rarely repeats the question."""
    pool = {one.memory.place: one for one in gathered.pool}
    for near in gathered.beside.values():
        for offset, found in near:
            if abs(offset) == 1 and found.memory.place not in pool and eligible(found):
                pool[found.memory.place] = found
    return Gathered(list(pool.values()), gathered.beside, gathered.corpus)


def signs(query: str, gathered: Gathered) -> tuple[list[str], Floats]:
    """The signs of relevance of every candidate, unweighted, for learning."""
    return parts(query, gathered.corpus, _rows(gathered))


def parts(query: str, corpus: Corpus, rows: Sequence[_Row]) -> tuple[list[str], Floats]:
    """One column a sign. Those of one search are compared with its best, so that they mean the same in every search."""
    cues = cues_of(query, {row.found.memory.agent for row in rows})
    asked = [word for word in query_words(query) if word not in cues.names] or list(query_words(query))
    here = _Texts([row.found for row in rows], asked)
    before = _Texts([row.before for row in rows], asked)
    after = _Texts([row.after for row in rows], asked)
    weights = np.array([weight(word, corpus) for word in asked])
    average = max(corpus.average_length, 1.0)
    words = here.bm25(weights, average)
    around = here.joined(before, after).bm25(weights, average * 3)
    meaning = here.cosines
    sessions = [row.found.memory.session_id for row in rows]
    columns: dict[str, Floats] = {
        "meaning": _share(meaning),
        "similarity": meaning,
        "meaning_before": _share(before.cosines),
        "meaning_after": _share(after.cosines),
        "words": _share(words),
        "words_before": _share(before.bm25(weights, average)),
        "words_after": _share(after.bm25(weights, average)),
        "words_around": _share(around),
        "words_and_meaning": _share(words) * _share(meaning),
        "around_and_meaning": _share(around) * _share(meaning),
        "best_meaning": _share(meaning) ** 4,
        "best_around": _share(around) ** 4,
        "covered": here.covered(weights),
        "rarest": here.rarest(weights),
        "session_meaning": _share(_best_of(sessions, meaning)),
        "session_words": _share(_sum_of(sessions, words)),
        "length": np.log1p(here.lengths) / 4,
        **_told(cues, rows),
    }
    return list(columns), np.stack(list(columns.values()), axis=1)


class _Texts:
    """The asked words in many memories at once: how often each holds each, how long each is, how near it is."""

    def __init__(self, found: Sequence[Found | None], asked: Sequence[str]) -> None:
        texts = [counted(one.memory.content) if one else _NO_WORDS for one in found]
        self.times: Floats = np.array([[text.get(word, 0) for word in asked] for text in texts], float)
        self.times = self.times.reshape(len(texts), len(asked))
        self.lengths: Floats = np.array([sum(text.values()) for text in texts], float)
        self.cosines: Floats = np.array([one.cosine if one else 0.0 for one in found])

    def joined(self, *others: _Texts) -> _Texts:
        """As if they were one text each with those of the others."""
        whole = _Texts([], [])
        whole.times = self.times + sum(other.times for other in others)
        whole.lengths = self.lengths + sum(other.lengths for other in others)
        return whole

    def bm25(self, weights: Floats, average: float) -> Floats:
        norm = SATURATION * (1 - LENGTH + LENGTH * self.lengths / average)
        scores: Floats = (self.times * (SATURATION + 1) / (self.times + norm[:, None])) @ weights
        return scores

    def rarest(self, weights: Floats) -> Floats:
        """What the rarest held word weighs, as a share of the rarest asked one."""
        if not len(weights):
            return np.zeros(len(self.lengths))
        shares: Floats = ((self.times > 0) * weights).max(axis=1) / (weights.max() or 1.0)
        return shares

    def covered(self, weights: Floats) -> Floats:
        """The share of what the words weigh that is held."""
        shares: Floats = (self.times > 0) @ weights / (weights.sum() or 1.0)
        return shares


def _told(cues: Cues, rows: Sequence[_Row]) -> dict[str, Floats]:
    """Signs that need no comparison: who spoke, when, and what kind of line it is."""
    memories = [row.found.memory for row in rows]
    questions = [row.before is not None and "?" in row.before.memory.content for row in rows]
    return {
        "speaker": np.array([float(memory.agent in cues.speakers) for memory in memories]),
        "other_speaker": np.array([float(cues.contradicts(memory.agent)) for memory in memories]),
        "date": np.array([cues.fits(memory.created_at) for memory in memories]),
        "time_told": np.array([float(cues.asks_when and cues.tells_time(memory.content)) for memory in memories]),
        "asks": np.array([float("?" in memory.content) for memory in memories]),
        "answers": np.array(questions, float),
    }


def _rows(gathered: Gathered) -> list[_Row]:
    """The candidates, each with what stands right before and after it as far as that is known."""
    rows = {one.memory.place: _Row(one) for one in gathered.pool}
    for place, near in gathered.beside.items():
        if place not in rows:
            continue
        line = sorted([*near, (0, rows[place].found)], key=lambda one: one[0])
        for (_, earlier), (_, later) in pairwise(line):
            if row := rows.get(earlier.memory.place):
                row.after = later
            if row := rows.get(later.memory.place):
                row.before = earlier
    return list(rows.values())


def _share(values: Floats) -> Floats:
    """Each value as a share of the best one."""
    best = values.max(initial=0.0)
    return np.maximum(values, 0) / best if best > 0 else np.zeros_like(values)


def _best_of(sessions: Sequence[str], values: Floats) -> Floats:
    best: dict[str, float] = {}
    for session, value in zip(sessions, values, strict=True):
        best[session] = max(best.get(session, 0.0), float(value))
    return np.array([best[session] if session else 0.0 for session in sessions])


def _sum_of(sessions: Sequence[str], values: Floats) -> Floats:
    total: dict[str, float] = {}
    for session, value in zip(sessions, values, strict=True):
        total[session] = total.get(session, 0.0) + float(value)
    return np.array([total[session] if session else 0.0 for session in sessions])


def _recency(memory: Memory, half_life: timedelta | None, now: datetime) -> float:
    if half_life is None:
        return 1.0
    return float(0.5 ** (max(now - memory.created_at, timedelta()) / half_life))


def _overlap(first: Mapping[str, int], second: Mapping[str, int]) -> float:
    """Cosine of the words of two texts."""
    product = sum(times * second[word] for word, times in first.items() if word in second)
    size = math.sqrt(sum(n * n for n in first.values()) * sum(n * n for n in second.values()))
    return product / size if size else 0.0


def _explanation(
    names: Sequence[str], shares: Floats, found: Found, *, words: Sequence[str], corpus: Corpus, recency: float
) -> Explanation:
    text = counted(found.memory.content)
    return Explanation(
        parts={name: round(float(share), 4) for name, share in zip(names, shares, strict=True) if share},
        cosine=found.cosine,
        bm25=bm25(text, words, corpus),
        matched=tuple(word for word in words if word in text),
        recency=recency,
        importance=found.memory.importance,
    )
