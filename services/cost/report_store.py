"""What reports and alerts ask of storage, besides sums. Each method is one transaction of one tenant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from services.cost.budget import SoftAction
from shared.paging import Page


class AlertKind(StrEnum):
    """What an alert is about."""

    SOFT_LIMIT = "soft_limit"
    HARD_LIMIT = "hard_limit"
    VELOCITY = "velocity"
    TOKEN_SPIKE = "token_spike"  # noqa: S105 - a kind of alert
    ANOMALY = "anomaly"
    UNSETTLED = "unsettled"


@dataclass(frozen=True, slots=True)
class Alert:
    """Something to know before it costs more. `once` is the same for the same thing seen again."""

    id: str
    once: str
    kind: AlertKind
    subject: str
    action: SoftAction
    observed: int
    expected: int
    explanation: str
    created_at: datetime
    active_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Pace:
    """What an agent spent in one step of time, `ago` steps before now."""

    agent: str
    ago: int
    micros_usd: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Pattern:
    """How one group uses tokens."""

    group: str
    generations: int
    input_tokens: int
    output_tokens: int
    input_p50: int
    input_p95: int
    output_p50: int
    output_p95: int
    cached_tokens: int
    reasoning_tokens: int
    micros_usd: int
    by_hour: tuple[int, ...]


class ReportStore(Protocol):
    """Where alerts are kept, and the ledger is read in other ways than by sums."""

    async def paces(self, tenant: str, *, since: datetime, now: datetime, step: timedelta) -> Sequence[Pace]:
        """What was spent after `since` by agent and step."""

    async def patterns(self, tenant: str, group: str, start: datetime, end: datetime) -> Sequence[Pattern]:
        """The 100 groups with the most tokens, most first."""

    async def raise_alert(self, tenant: str, alert: Alert) -> bool:
        """Keeps it; False when it is known."""

    async def alerts(self, tenant: str, kind: str, page: Page) -> Sequence[Alert]:
        """Newest first, at most `page.size` + 1. The cursor is (time, id) of the last one seen."""

    async def active(self, tenant: str, *, now: datetime) -> Sequence[Alert]:
        """Those whose action is asked for, newest first."""
