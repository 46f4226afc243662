"""What will have been spent at the end of a window: the rest of it as such hours usually are, at the present level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Final

from services.cost.anomalies import HOUR

_DAY: Final = 24
_WEEKEND: Final = 5
_WEEK: Final = 7
_NINE_IN_TEN: Final = 1.2816  # deviations of a normal distribution
_UNKNOWN: Final = 0.5  # half as much more or less, when there is no week to learn from
_TO_DEVIATION: Final = 1.4826


@dataclass(frozen=True, slots=True)
class Forecast:
    """Micro-USD at the window's end; one time in ten less than `low`, one in ten more than `high`."""

    spent: int
    expected: int
    low: int
    high: int
    exhausted_at: datetime | None
    days_of_history: int


def forecast(
    first: datetime, hours: Sequence[int], *, spent: int, now: datetime, end: datetime, limit: int | None
) -> Forecast:
    """From whole hours since `first`, the newest last; `spent` is what this window has cost so far."""
    now = max(now, first)
    days = len(hours) // _DAY
    ahead = _ahead(first, hours, now, end)
    rest = sum(part for _, part in ahead)
    spread = _spread(hours, days, (end - now) / timedelta(days=1))
    return Forecast(
        spent=spent,
        expected=spent + round(rest),
        low=spent + round(rest * math.exp(-spread)),
        high=spent + round(rest * math.exp(spread)),
        exhausted_at=_exhausted(ahead, spent, limit),
        days_of_history=days,
    )


def _ahead(first: datetime, hours: Sequence[int], now: datetime, end: datetime) -> list[tuple[datetime, float]]:
    """What each hour to come, the present one in part, will cost; and when it ends."""
    usual = _usual(first, hours)
    found = []
    at = now
    while at < end:
        following = min(at.replace(minute=0, second=0, microsecond=0) + HOUR, end)
        found.append((following, usual[at.weekday() >= _WEEKEND][at.hour] * ((following - at) / HOUR)))
        at = following
    return found


def _usual(first: datetime, hours: Sequence[int]) -> tuple[list[float], list[float]]:
    """By kind of day and hour: the mean of three weeks, to which the last week's level is applied; means add up."""
    recent = hours[-3 * _WEEK * _DAY :]
    begin = first + (len(hours) - len(recent)) * HOUR
    total = sum(recent) / len(recent) if recent else 0.0
    if len(recent) < _WEEK * _DAY:
        return [total] * _DAY, [total] * _DAY
    sums: tuple[list[list[int]], list[list[int]]] = ([[] for _ in range(_DAY)], [[] for _ in range(_DAY)])
    for index, value in enumerate(recent):
        at = begin + index * HOUR
        sums[at.weekday() >= _WEEKEND][at.hour].append(value)
    last = recent[-_WEEK * _DAY :]
    level = (sum(last) / len(last)) / total if total else 1.0
    return tuple([level * (sum(slot) / len(slot)) if slot else total for slot in kind] for kind in sums)  # type: ignore[return-value] # two of them


def _spread(hours: Sequence[int], days: int, ahead: float) -> float:
    """How far off, in logarithms: days vary, the level is known from a week only, and it may go on moving as it did."""
    if days < _WEEK:
        return _UNKNOWN
    daily = [sum(hours[len(hours) - (back + 1) * _DAY : len(hours) - back * _DAY]) for back in range(min(days, 28))]
    changes = [math.log((one + 1) / (week + 1)) for one, week in zip(daily, daily[_WEEK:], strict=False)]
    if not changes:
        return _UNKNOWN
    moving = median(changes) * (_WEEK + ahead) / 2 / _WEEK
    deviation = _TO_DEVIATION * median(map(abs, changes)) / math.sqrt(2)
    return _NINE_IN_TEN * math.hypot(deviation * math.sqrt(1 / max(ahead, 1 / _DAY) + 1 / _WEEK), moving)


def _exhausted(ahead: Sequence[tuple[datetime, float]], spent: int, limit: int | None) -> datetime | None:
    total = float(spent)
    for ends_at, part in ahead:
        total += part
        if limit is not None and total > limit:
            return ends_at
    return None
