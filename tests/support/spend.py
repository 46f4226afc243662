"""Synthetic hourly spend: days and weeks, growth and noise, and anomalies of five kinds put in on purpose."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from services.cost.anomalies import HOUR, Anomaly, Kind

FIRST = datetime(2026, 1, 5, tzinfo=UTC)  # a Monday
WEEKS = 9
QUIET = 15  # days before the first anomaly


@dataclass(frozen=True, slots=True)
class Injected:
    """An anomaly that is really there."""

    kind: Kind
    start: datetime
    end: datetime

    def met_by(self, found: Anomaly) -> bool:
        """Whether the finding lies in it; the hours in which the level comes back belong to it."""
        return found.start < self.end + timedelta(hours=6) and found.end > self.start


def usual(at: datetime) -> float:
    """Micro-USD an hour: busy days, quiet nights, half as much at the weekend, growing by a fifth in two months."""
    day = 0.25 + 0.75 * math.exp(-(((at.hour + at.minute / 60 - 14) / 4.5) ** 2))
    week = 0.5 if at.weekday() >= 5 else 1.0
    growth = 1 + 0.2 * (at - FIRST) / timedelta(days=60)
    return 4_000_000 * day * week * growth


SHAPES: dict[Kind, tuple[int, Callable[[float, random.Random], float]]] = {
    Kind.SPIKE: (2, lambda _, chance: chance.uniform(3, 6)),
    Kind.DROP: (6, lambda _, chance: chance.uniform(0.15, 0.3)),
    Kind.SILENCE: (4, lambda _, __: 0.0),
    Kind.SHIFT: (36, lambda _, chance: chance.uniform(1.6, 1.7)),
    Kind.DRIFT: (120, lambda part, _: 1 + 0.8 * part),
}


def spend(seed: int, *, kinds: tuple[Kind, ...] = tuple(Kind), noise: float = 0.15) -> tuple[list[int], list[Injected]]:
    """A series of hours from FIRST on, and what was put into it: one anomaly of each kind, in random order, eight days
    apart at least.
    """
    chance = random.Random(seed)
    factors = [1.0] * (WEEKS * 7 * 24)
    injected = []
    order = chance.sample(kinds, len(kinds))
    for number, kind in enumerate(order):
        hours, shape = SHAPES[kind]
        begin = (QUIET + number * 9) * 24 + chance.randrange(72)
        level = shape(1.0, chance)
        for step in range(hours):
            factors[begin + step] = shape((step + 1) / hours, chance) if kind is Kind.DRIFT else level
        start = FIRST + begin * HOUR
        injected.append(Injected(kind, start, start + hours * HOUR))
    values = [
        round(usual(FIRST + index * HOUR) * factor * chance.lognormvariate(0, noise))
        for index, factor in enumerate(factors)
    ]
    return values, injected
