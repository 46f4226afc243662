"""What stands out in hourly spend: a seasonal baseline that single outliers cannot move, and tests on what is left.

Everything is reckoned in logarithms, because spend varies in proportion, and from the past alone, so that an hour's
verdict never changes when later hours come in. For each hour:

- usual: the median of the same hour on the same kind of day (weekday or weekend) in the four weeks before;
- level: the median residual of the two weeks before the last day, which follows honest growth;
- scale: the median absolute residual of the four weeks before, as a standard deviation, at least 8 %.

A residual of more than 4.5 scales, or two in a row of more than 3.2, is a spike or a drop (silence, when hardly
anything is left). Many small ones in one direction add up (a CUSUM) to a shift. A level that moved by more than 30 %
within a week, day after day and away from the usual, is a drift.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from statistics import median
from typing import Final

HOUR: Final = timedelta(hours=1)
HISTORY: Final = timedelta(days=28)
_DAY: Final = 24
_WEEK: Final = 7 * _DAY
_ENOUGH: Final = 5  # days of the same kind before an hour is judged
_OUT: Final = 4.5
_TWICE_OUT: Final = 3.2
_SMALLEST_SCALE: Final = 0.08
_TO_DEVIATION: Final = 1.4826  # of a normal distribution's median absolute deviation
_CLIP: Final = 3.0
_SLACK: Final = 0.75
_ADDED_UP: Final = 11.0
_MOST_ADDED: Final = 13.0
_DRIFT: Final = math.log(1.3)
_AWAY: Final = math.log(1.2)
_SILENT: Final = 0.05
_GAP: Final = 6
_STEPS: Final = 3
_WEEKEND: Final = 5


class Kind(StrEnum):
    SPIKE = "spike"
    DROP = "drop"
    SILENCE = "silence"
    SHIFT = "shift"
    DRIFT = "drift"


@dataclass(frozen=True, slots=True)
class Point:
    """One hour: what was spent and, when there was history enough, what was to be expected; micro-USD."""

    at: datetime
    spent: int
    expected: int = 0
    low: int = 0
    high: int = 0
    judged: bool = False
    kind: Kind | None = None
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class Anomaly:
    """Hours that stand out together, from the first to the end of the last."""

    start: datetime
    end: datetime
    kind: Kind
    spent: int
    expected: int
    score: float
    explanation: str = ""


def judge(first: datetime, spent: Sequence[int]) -> list[Point]:
    """Judges each hour of a series without gaps that begins at `first`."""
    return list(_Judge(first, spent).points())


class _Judge:
    """The state that runs along a series."""

    def __init__(self, first: datetime, spent: Sequence[int]) -> None:
        self._first = first
        self._spent = spent
        self._residuals: list[float] = []  # against the usual alone; nan while there is too little history
        self._slots: dict[tuple[bool, int], list[tuple[int, int]]] = {}
        self._up = self._down = self._before = 0.0
        self._drifted = False

    def points(self) -> Iterator[Point]:
        for index, spent in enumerate(self._spent):
            at = self._first + index * HOUR
            slot = self._slots.setdefault((at.weekday() >= _WEEKEND, at.hour), [])
            usual = self._usual(slot, index)
            yield Point(at, spent) if usual is None else self._judged(at, index, spent, usual)
            slot.append((index, spent))

    def _usual(self, slot: list[tuple[int, int]], index: int) -> float | None:
        recent = [value for when, value in slot if when >= index - HISTORY // HOUR]
        if len(recent) < _ENOUGH:
            self._residuals.append(math.nan)
            return None
        return float(median(recent))

    def _judged(self, at: datetime, index: int, spent: int, usual: float) -> Point:
        little = 1.0 + 0.02 * self._typical(index)
        residual = math.log((spent + little) / (usual + little))
        self._residuals.append(residual)
        level = self._median(index - 2 * _WEEK - _DAY, index - _DAY)
        scale = self._scale(index, level)
        score = (residual - level) / scale
        expected = (usual + little) * math.exp(level) - little
        self._add_up(score)
        kind = self._kind(index, spent, expected, score)
        width = math.exp(_OUT * scale)
        return Point(
            at=at,
            spent=spent,
            expected=max(0, round(expected)),
            low=max(0, round((expected + little) / width - little)),
            high=max(0, round((expected + little) * width - little)),
            judged=True,
            kind=kind,
            score=round(score, 1),
        )

    def _kind(self, index: int, spent: int, expected: float, score: float) -> Kind | None:
        twice = abs(score) > _TWICE_OUT and score * self._before > _TWICE_OUT**2
        out = abs(score) > _OUT or twice
        self._before = score
        drifts = self._drifts(index)
        if out and score < 0:
            return Kind.SILENCE if spent < _SILENT * expected else Kind.DROP
        if out:
            return Kind.SPIKE
        if drifts:
            return Kind.DRIFT
        shifts = (self._up > _ADDED_UP and score > _SLACK) or (self._down > _ADDED_UP and score < -_SLACK)
        return Kind.SHIFT if shifts else None

    def _add_up(self, score: float) -> None:
        clipped = max(-_CLIP, min(_CLIP, score))
        self._up = max(0.0, min(_MOST_ADDED, self._up + clipped - _SLACK))
        self._down = max(0.0, min(_MOST_ADDED, self._down - clipped - _SLACK))

    def _drifts(self, index: int) -> bool:
        """Whether the daily level has been moving; looked at four times a day, told when so twice in a row."""
        if index < 2 * _WEEK or index % 6:
            return False
        before, self._drifted = self._drifted, self._moves(index)
        return before and self._drifted

    def _moves(self, index: int) -> bool:
        days = [self._median(index - back * _DAY + 1, index - (back - 1) * _DAY + 1) for back in range(8, 0, -1)]
        moved = days[-1] - days[0]
        way = math.copysign(1, moved)
        now = self._median(index - _DAY // 4, index + 1)
        if abs(moved) < _DRIFT or min(days[-1] * way, now * way) < _AWAY:
            return False
        steps = [(after - before) * way for before, after in pairwise(days[2:])]
        return sum(step > 0 for step in steps) >= len(steps) - 1 and max(steps) < 0.6 * abs(moved)

    def _typical(self, index: int) -> float:
        recent = self._spent[max(0, index - _WEEK) : index]
        return float(median(recent)) if recent else 0.0

    def _median(self, start: int, end: int) -> float:
        found = [value for value in self._residuals[max(0, start) : max(0, end)] if value == value]  # noqa: PLR0124
        return median(found) if found else 0.0

    def _scale(self, index: int, level: float) -> float:
        start = max(0, index - 4 * _WEEK)
        found = sorted(abs(value - level) for value in self._residuals[start:index] if value == value)  # noqa: PLR0124
        return max(_SMALLEST_SCALE, _TO_DEVIATION * median(found)) if found else _SMALLEST_SCALE


def anomalies(points: Sequence[Point]) -> list[Anomaly]:
    """Hours that stand out, joined when hardly anything lies between. One or two steps of a shift are none yet."""
    found: list[list[Point]] = []
    for point in points:
        if point.kind is None:
            continue
        if found and point.at - found[-1][-1].at <= _GAP * HOUR:
            found[-1].append(point)
        else:
            found.append([point])
    times = [point.at for point in points]
    real = (group for group in found if len(group) >= _STEPS or any(point.kind is not Kind.SHIFT for point in group))
    return [_joined(group, points, times) for group in real]


def _joined(group: list[Point], points: Sequence[Point], times: list[datetime]) -> Anomaly:
    start, end = group[0].at, group[-1].at + HOUR
    span = points[bisect_left(times, start) : bisect_left(times, end)]
    worst = max(group, key=lambda point: abs(point.score))
    return Anomaly(
        start=start,
        end=end,
        kind=_kind_of(group),
        spent=sum(point.spent for point in span),
        expected=sum(point.expected for point in span),
        score=worst.score,
    )


def _kind_of(group: list[Point]) -> Kind:
    """The kind of the whole: long ones are drifts or shifts whatever their hours are, others what most hours are."""
    kinds = [point.kind for point in group]
    long = group[-1].at - group[0].at >= _DAY / 2 * HOUR
    if long:
        return Kind.DRIFT if Kind.DRIFT in kinds else Kind.SHIFT
    return max((kind for kind in Kind if kind in kinds), key=kinds.count)


def explained(anomaly: Anomaly, parts: Sequence[tuple[str, int, int]]) -> Anomaly:
    """With a sentence: how much, against what, and the part (name, spent, spent a week before) that changed most."""
    hours = (anomaly.end - anomaly.start) // HOUR
    when = f"{anomaly.start:%A %Y-%m-%d %H:%M} UTC"
    text = (
        f"{anomaly.kind.capitalize()} from {when} for {hours} h: {dollars(anomaly.spent)} against "
        f"{dollars(anomaly.expected)} expected, {abs(anomaly.score):.1f} robust deviations at its worst hour."
    )
    moved = anomaly.spent - anomaly.expected
    name, now, before = max(parts, key=lambda part: (part[1] - part[2]) * (1 if moved > 0 else -1), default=("", 0, 0))
    if name and (now - before) * moved > 0:
        text += f" Most of it is {name}: {dollars(now)} against {dollars(before)} a week before."
    return replace(anomaly, explanation=text)


def dollars(micros: int) -> str:
    """For people, to the cent or to the micro-dollar below one."""
    return f"${micros / 1_000_000:,.2f}" if micros >= 1_000_000 else f"${micros / 1_000_000:.6f}"  # noqa: PLR2004
