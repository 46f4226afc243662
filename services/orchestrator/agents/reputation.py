"""Reputation: the mean of a beta distribution over evidence that fades. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from agentnet.orchestrator.v1 import execution_pb2
from shared.errors import Reason

HALF_LIFE: Final = timedelta(days=30)
# What is assumed of everybody: as likely good as bad, and worth four pieces of evidence.
PRIOR: Final = 2.0
# Failures that say nothing of the agent: its provider, its money, its caller.
_NOBODYS_FAULT: Final = frozenset(
    {
        Reason.ERROR_REASON_BUDGET_EXHAUSTED,
        Reason.ERROR_REASON_DELEGATION_ENDED,
        Reason.ERROR_REASON_CHAIN_LIMIT_REACHED,
        Reason.ERROR_REASON_GENERATION_CANCELLED,
        Reason.ERROR_REASON_GENERATION_LOST,
        Reason.ERROR_REASON_PROVIDER_AUTH_FAILED,
        Reason.ERROR_REASON_MODEL_NOT_FOUND,
        Reason.ERROR_REASON_POLICY_UNAVAILABLE,
        Reason.ERROR_REASON_DEPENDENCY_UNAVAILABLE,
    }
)
_VIOLATION_WEIGHT: Final = 0.5


@dataclass(frozen=True, slots=True)
class Evidence:
    """How good something was, 0 to 1, and how much it counts."""

    source: str
    score: float
    weight: float
    at: datetime


@dataclass(frozen=True, slots=True)
class Sums:
    """Evidence of one source, as of a time."""

    positive: float
    negative: float
    count: int
    at: datetime

    def faded(self, now: datetime) -> Sums:
        """The same evidence later."""
        left = _left(now - self.at)
        return Sums(self.positive * left, self.negative * left, self.count, now)

    def with_(self, found: Evidence) -> Sums:
        """With one more piece; one that comes late has faded already."""
        now = max(self.at, found.at)
        known, weight = self.faded(now), found.weight * _left(now - found.at)
        good = weight * found.score
        return Sums(known.positive + good, known.negative + weight - good, self.count + 1, now)


def nothing(at: datetime) -> Sums:
    """No evidence."""
    return Sums(0, 0, 0, at)


def of_execution(execution: execution_pb2.AgentExecution, at: datetime) -> Sequence[Evidence]:
    """What one execution says of its agent."""
    found = [Evidence("violations", 0, _VIOLATION_WEIGHT, at) for _ in execution.violations]
    failure = execution.failure
    blameless = not execution.success and (failure.retryable or failure.reason in _NOBODYS_FAULT)
    return found if blameless else [Evidence("executions", float(execution.success), 1, at), *found]


def reputation(agent: str, known: Mapping[str, Sums], now: datetime) -> execution_pb2.AgentReputation:
    """The score with what it is made of, the heaviest first."""
    sums = {source: found.faded(now) for source, found in known.items()}
    good = PRIOR + sum(found.positive for found in sums.values())
    bad = PRIOR + sum(found.negative for found in sums.values())
    total = good + bad
    factors = [
        execution_pb2.ReputationFactor(
            source=source,
            positive=found.positive,
            negative=found.negative,
            effect=good / total - _mean(good - found.positive, bad - found.negative),
            count=found.count,
        )
        for source, found in sums.items()
    ]
    factors.append(execution_pb2.ReputationFactor(source="prior", positive=PRIOR, negative=PRIOR))
    factors.sort(key=lambda factor: -(factor.positive + factor.negative))
    uncertainty = math.sqrt(good * bad / (total * total * (total + 1)))
    return execution_pb2.AgentReputation(agent=agent, score=good / total, uncertainty=uncertainty, factors=factors)


def _mean(good: float, bad: float) -> float:
    return good / (good + bad)


def _left(age: timedelta) -> float:
    return float(0.5 ** (max(age, timedelta()) / HALF_LIFE))
