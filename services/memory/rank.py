"""In which order found memories help most: every sign of relevance a number, the numbers added up with weights."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.memory import kinds
from services.memory.closely import Closeness
from services.memory.cues import Cues, cues_of
from services.memory.store import Found, Gathered, Memory
from services.memory.texts import NOTHING, Floats, Reading
from services.memory.words import counted

# Whether a candidate was compared token by token: not a sign of relevance, but of what the others are worth.
_READ: Final = "read"
# Of how many times as many as are wanted diversity may choose.
_CHOICE: Final = 4
_HALF_PLACE: Final = 10.0
# By how many standard deviations a token is nearer than usual.
_OUT: Final = 1.5
_FAR_OUT: Final = 2.5


@dataclass(frozen=True, slots=True)
class Weights:
    """What each sign is worth, where a candidate was compared with the question token by token and where it was not."""

    base: float
    read: Mapping[str, float]
    unread: Mapping[str, float]

    def shares(self, names: Sequence[str], values: Floats) -> Floats:
        """Of every candidate what each sign adds to the logarithm of its odds, beside `base`."""
        read, unread = (np.array([known.get(name, 0.0) for name in names]) for known in (self.read, self.unread))
        shares: Floats = values * np.where(values[:, [names.index(_READ)]] > 0, read, unread)
        return shares


# Learned from questions whose evidence is known; tests/bench/memory_evidence.py --learn writes them.
LEARNED: Final = Weights(**json.loads(Path(__file__).with_name("weights.json").read_text()))


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


@dataclass(frozen=True, slots=True)
class _Rows:
    """The candidates, and in which row of the reading each is, and what stands right before and after it."""

    found: Sequence[Found]
    here: Sequence[int]
    before: Sequence[int]
    after: Sequence[int]
    questions: Sequence[bool]

    def further(self, side: Sequence[int]) -> list[int]:
        """What stands one turn beyond `before` or `after`, as far as that is a candidate too."""
        beyond = dict(zip(self.here, side, strict=True))
        return [beyond.get(row, NOTHING) for row in side]


def ranked(
    query: str, gathered: Gathered, taste: Taste, *, now: datetime, limit: int, weights: Weights = LEARNED,
    reading: Reading | None = None,
) -> list[Ranked]:  # fmt: skip
    """The candidates that help most, best first, with how that came about. A reading of more than these will do."""
    if not gathered.pool:
        return []
    read = reading or Reading(query, gathered)
    names, values = parts(query, read, gathered)
    pool = [one.memory for one in gathered.pool]
    shares = weights.shares(names, values)
    odds = shares.sum(axis=1) + weights.base
    recency = np.array([_recency(memory, taste.half_life, now) for memory in pool])
    weighing = 1 + taste.importance_weight * (np.array([memory.importance for memory in pool]) - 0.5)
    relevance = np.minimum(recency * weighing / (1 + np.exp(-odds)), 1.0)
    order = np.argsort(-relevance, kind="stable")[: limit * _CHOICE if taste.diversity else limit]
    rows = [read.row[pool[at].place] for at in order]
    scores = read.texts.rows(rows).bm25(read.weights, read.average)
    best = [
        Ranked(
            pool[at], gathered.pool[at].cosine, float(relevance[at]),
            Explanation(
                parts={name: round(share, 4) for name, share in zip(names, shares[at].tolist(), strict=True) if share},
                cosine=gathered.pool[at].cosine, bm25=float(score),
                matched=tuple(read.words[word] for word in read.texts.held(row)),
                recency=float(recency[at]), importance=pool[at].importance,
            ),
        )
        for at, row, score in zip(order.tolist(), rows, scores, strict=True)
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


def with_neighbours(gathered: Gathered, eligible: Callable[[Found], bool]) -> Gathered:
    """With the turns right before and after the first candidates too: an answer rarely repeats the question."""
    pool = {one.memory.place: one for one in gathered.pool}
    for near in gathered.beside.values():
        for offset, found in near:
            if abs(offset) == 1 and found.memory.place not in pool and eligible(found):
                pool[found.memory.place] = found
    return replace(gathered, pool=list(pool.values()))


def signs(query: str, gathered: Gathered, tokens: bytes = b"") -> tuple[list[str], Floats]:
    """The signs of relevance of every candidate, unweighted, for learning. `tokens`: the question's."""
    return parts(query, Reading(query, gathered, tokens), gathered)


def parts(query: str, reading: Reading, gathered: Gathered) -> tuple[list[str], Floats]:
    """One column a sign. Those of one search are compared with its best, so that they mean the same in every search."""
    rows = _rows(gathered, reading)
    cues = cues_of(query, {one.memory.agent for one in rows.found})
    asked = [at for at, word in enumerate(reading.words) if word not in cues.names] or range(len(reading.words))
    weights, average = reading.weights[list(asked)], reading.average
    texts = reading.texts.columns(asked)
    here, before, after = texts.rows(rows.here), texts.rows(rows.before), texts.rows(rows.after)
    words = here.bm25(weights, average)
    around = here.joined(before, after).bm25(weights, average * 3)
    meaning = here.cosines
    sessions = _sessions(rows.found)
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
        **_nearest_first(meaning, words, around),
        **_told(cues, rows),
        **kinds.signs(query, here.kinds),
        **_token_by_token(rows, reading.closeness),
    }
    return list(columns), np.stack(list(columns.values()), axis=1)


def _nearest_first(meaning: Floats, words: Floats, around: Floats) -> dict[str, Floats]:
    """Signs of where a candidate stands in each order: 1 for the first, half of that for the eleventh."""
    orders = {"meaning_place": meaning, "words_place": words, "around_place": around}
    return {name: _by_place(values) for name, values in orders.items()}


def _by_place(values: Floats) -> Floats:
    """1 for the largest, half of that for the eleventh."""
    return _HALF_PLACE / (_HALF_PLACE + _places(values))


def _token_by_token(rows: _Rows, closeness: Closeness) -> dict[str, Floats]:
    """Signs of how near the nearest tokens are, alone and with those of the turns around."""
    here, before, after = (closeness.rows(of) for of in (rows.here, rows.before, rows.after))
    around = here.joined(before, after)
    wide = around.joined(*(closeness.rows(of) for of in (rows.further(rows.before), rows.further(rows.after))))
    telling, keen = here.telling(), here.telling(sharply=True)
    usual = here.above_usual(telling)
    return {
        "tokens": _share(usual),
        "tokens_similarity": here.near @ telling,
        "tokens_around": _share(around.above_usual(telling)),
        "tokens_before": _share(before.above_usual(telling)),
        "tokens_after": _share(after.above_usual(telling)),
        "tokens_place": _by_place(usual) * here.read,
        "tokens_keen": _share(here.above_usual(keen)),
        "tokens_keen_similarity": here.near @ keen,
        "tokens_keen_around": _share(around.above_usual(keen)),
        "tokens_keen_wide": _share(wide.above_usual(keen)),
        "tokens_standing_out": here.standing_out(telling, _OUT),
        "tokens_standing_far_out": here.standing_out(telling, _FAR_OUT),
        _READ: here.read.astype(float),
    }


def _told(cues: Cues, rows: _Rows) -> dict[str, Floats]:
    """Signs that need no comparison: who spoke, when, and what kind of line it is."""
    memories = [one.memory for one in rows.found]
    return {
        "speaker": np.array([float(memory.agent in cues.speakers) for memory in memories]),
        "other_speaker": np.array([float(cues.contradicts(memory.agent)) for memory in memories]),
        "date": np.array([cues.fits(memory.created_at) for memory in memories]),
        "time_told": np.array([float(cues.asks_when and cues.tells_time(memory.content)) for memory in memories]),
        "asks": np.array([float("?" in memory.content) for memory in memories]),
        "answers": np.array(rows.questions, float),
    }


def _rows(gathered: Gathered, reading: Reading) -> _Rows:
    """The candidates, each with what stands right before and after it as far as that is known."""
    known = {one.memory.place: one for one in gathered.pool}
    before: dict[int, Found] = {}
    after: dict[int, int] = {}
    for place, near in gathered.beside.items():
        if place not in known:
            continue
        line = sorted([*near, (0, known[place])], key=_offset)
        for (_, earlier), (_, later) in pairwise(line):
            after[earlier.memory.place] = reading.row[later.memory.place]
            before[later.memory.place] = earlier
    return _Rows(
        found=gathered.pool,
        here=[reading.row[place] for place in known],
        before=[reading.row[before[place].memory.place] if place in before else NOTHING for place in known],
        after=[after.get(place, NOTHING) for place in known],
        questions=[place in before and "?" in before[place].memory.content for place in known],
    )


def _offset(one: tuple[int, Found]) -> int:
    return one[0]


def _places(values: Floats) -> Floats:
    """Of each value how many come before it, the largest first."""
    places = np.empty(len(values))
    places[np.argsort(-values, kind="stable")] = np.arange(len(values))
    return places


def _share(values: Floats) -> Floats:
    """Each value as a share of the best one."""
    best = values.max(initial=0.0)
    return np.maximum(values, 0) / best if best > 0 else np.zeros_like(values)


def _sessions(found: Sequence[Found]) -> NDArray[np.intp]:
    """A number a session; 0 is none."""
    numbers = {"": 0}
    return np.array([numbers.setdefault(one.memory.session_id, len(numbers)) for one in found], np.intp)


def _best_of(sessions: NDArray[np.intp], values: Floats) -> Floats:
    best = np.zeros(sessions.max(initial=0) + 1)
    np.maximum.at(best, sessions, values)
    best[0] = 0.0
    return best[sessions]


def _sum_of(sessions: NDArray[np.intp], values: Floats) -> Floats:
    total: Floats = np.zeros(sessions.max(initial=0) + 1)
    np.add.at(total, sessions, values)
    total[0] = 0.0
    return total[sessions]


def _recency(memory: Memory, half_life: timedelta | None, now: datetime) -> float:
    if half_life is None:
        return 1.0
    return float(0.5 ** (max(now - memory.created_at, timedelta()) / half_life))


def _overlap(first: Mapping[str, int], second: Mapping[str, int]) -> float:
    """Cosine of the words of two texts."""
    product = sum(times * second[word] for word, times in first.items() if word in second)
    size = math.sqrt(sum(n * n for n in first.values()) * sum(n * n for n in second.values()))
    return product / size if size else 0.0
