"""The numbers of an evaluation, as pure functions of texts, vectors and counts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final

Vector = Sequence[float]

_WORD: Final = re.compile(r"\w+")
_RUN: Final = 3
# The normal distribution's 97.5 % point: two-sided 95 %.
_Z: Final = 1.959963984540054
# Words that carry no topic of their own, so that coverage without keywords does not count them.
_EMPTY: Final = frozenset(
    word
    for line in (
        "a about an and any are as at be been but by can do does for from had has have how if in into is it its more",
        "most no not of on or our should so than that the their them then there these they this to too was we were",
        "what when where which who why will with would you your",
    )
    for word in line.split()
)


@dataclass(frozen=True, slots=True)
class Interval:
    """A share, and between which shares the true one lies with 95 % confidence."""

    rate: float
    low: float
    high: float


def words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def said(keyword: str, text: str) -> bool:
    """Whether a keyword stands in a text as whole words, whatever the case."""
    pattern = r"\W+".join(re.escape(word) for word in keyword.lower().split())
    return re.search(rf"(?<!\w){pattern}(?!\w)", text.lower()) is not None


def coverage(text: str, required: Sequence[str], topic: str) -> float:
    """The share of what is required that is said; without requirements, of the topic's own words."""
    if required:
        return sum(said(keyword, text) for keyword in required) / len(required)
    wanted = set(words(topic)) - _EMPTY
    return len(wanted & set(words(text))) / len(wanted) if wanted else 1.0


def novelty(texts: Sequence[str]) -> float:
    """Distinct runs of three words among all such runs of all turns; 1 when there is none, 0 when nothing is said."""
    spoken = [words(text) for text in texts]
    if not any(spoken):
        return 0.0
    runs = [tuple(turn[place : place + _RUN]) for turn in spoken for place in range(len(turn) - _RUN + 1)]
    return len(set(runs)) / len(runs) if runs else 1.0


def coherence(topic: Vector, turns: Sequence[Vector]) -> float:
    """The mean likeness of each turn to the turn before it or to the topic, whichever is nearer; 0 without turns."""
    if not turns:
        return 0.0
    before = [topic, *turns[:-1]]
    nearness = [max(cosine(turn, last), cosine(turn, topic)) for turn, last in zip(turns, before, strict=True)]
    return sum(nearness) / len(nearness)


def cosine(first: Vector, second: Vector) -> float:
    """Likeness of two vectors, 0 to 1: opposite meanings count as none."""
    length = sqrt(sum(value * value for value in first)) * sqrt(sum(value * value for value in second))
    if not length:
        return 0.0
    return min(1.0, max(0.0, sum(a * b for a, b in zip(first, second, strict=True)) / length))


def wilson(passed: int, runs: int) -> Interval:
    """The success rate with its score interval (Wilson 1927), which holds for few runs and for rates near 0 and 1."""
    if not runs:
        return Interval(0.0, 0.0, 1.0)
    rate, square = passed / runs, _Z * _Z
    centre = (rate + square / (2 * runs)) / (1 + square / runs)
    spread = _Z * sqrt(rate * (1 - rate) / runs + square / (4 * runs * runs)) / (1 + square / runs)
    return Interval(rate, max(0.0, centre - spread), min(1.0, centre + spread))
