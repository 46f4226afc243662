"""How fast money and tokens go, against how fast they usually do: pure decisions on a few steps of time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Final

from services.cost.budget import Level, scope
from services.cost.report_store import AlertKind, Pace
from services.cost.store import Summary

STEP: Final = timedelta(minutes=5)
STEPS: Final = 12  # the newest and eleven before it: an hour


@dataclass(frozen=True, slots=True)
class Rule:
    """When the last five minutes are too fast: `factor` times the usual, and at least `floor`."""

    kind: AlertKind
    factor: float
    floor: int


@dataclass(frozen=True, slots=True)
class Speeding:
    """A part of a tenant that goes too fast; amounts of five minutes."""

    kind: AlertKind
    subject: str
    observed: int
    usual: int


def speeding(
    paces: Sequence[Pace], rules: Iterable[Rule], usual: Callable[[AlertKind, str], int] | None = None
) -> list[Speeding]:
    """What goes too fast, the tenant as a whole and each agent.

    Usual is the median of the eleven steps before or, if more, what `usual` tells of a kind and a subject: what is busy
    at this hour on other days may be busy today.
    """
    found = []
    for rule in rules:
        for subject, steps in _by_subject(paces, rule.kind).items():
            observed = steps.get(0, 0)
            before = round(median(steps.get(ago, 0) for ago in range(1, STEPS)))
            if not _too_fast(observed, before, rule):
                continue
            known = max(before, usual(rule.kind, subject)) if usual else before
            if _too_fast(observed, known, rule):
                found.append(Speeding(rule.kind, subject, observed, known))
    return found


def coarse(sums: Sequence[Summary], now: datetime) -> list[Pace]:
    """Paces from the sums of this hour and the last by agent and hour: their averages over five minutes."""
    hour = now.replace(minute=0, second=0, microsecond=0)
    part = STEP / max(now - hour, STEP)
    found = []
    for one in sums:
        agent, when = one.group
        tokens = one.input_tokens + one.output_tokens
        if when == f"{hour:%Y-%m-%dT%H}":
            found.append(Pace(agent, 0, round(one.micros_usd * part), round(tokens * part)))
        else:
            found += [Pace(agent, ago, one.micros_usd // STEPS, tokens // STEPS) for ago in range(1, STEPS)]
    return found


def _too_fast(observed: int, usual: int, rule: Rule) -> bool:
    return observed >= rule.floor and observed > rule.factor * usual


def _by_subject(paces: Sequence[Pace], kind: AlertKind) -> Mapping[str, Mapping[int, int]]:
    found: defaultdict[str, defaultdict[int, int]] = defaultdict(lambda: defaultdict(int))
    for pace in paces:
        amount = pace.tokens if kind is AlertKind.TOKEN_SPIKE else pace.micros_usd
        found[scope(Level.TENANT, "")][pace.ago] += amount
        if pace.agent:
            found[scope(Level.AGENT, pace.agent)][pace.ago] += amount
    return found
