"""Alerts: what a running service notices about each tenant, raised once, and what it asks callers to do meanwhile."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from services.cost.anomalies import HOUR, Anomaly, Kind, dollars
from services.cost.budget import Budget, Level, Passed, SoftAction, scope
from services.cost.report_store import Alert, AlertKind, Pace, ReportStore
from services.cost.reports import Reports
from services.cost.spikes import spikes
from services.cost.store import CostStore, Filter
from services.cost.velocity import STEP, STEPS, Rule, Speeding, coarse, speeding
from shared.clock import Clock
from shared.ids import Ids
from shared.log import log
from shared.paging import Page
from shared.risks import Tell, untold

_FRESH_FOR: Final = timedelta(seconds=5)
_ALL_BUDGETS: Final = Page(500)
_REMEMBERED: Final = 1000  # limits met between two looks at a tenant


class AlertBoard:
    """What is asked of callers now, read again every few seconds."""

    def __init__(self, reports: ReportStore, *, clock: Clock) -> None:
        self._reports = reports
        self._clock = clock
        self._known: dict[str, tuple[timedelta, Sequence[Alert]]] = {}
        self._met: defaultdict[str, dict[Passed, None]] = defaultdict(dict)

    def met(self, tenant: str, limits: Iterable[Passed]) -> None:
        """Calls met these limits: they were refused, or went beyond soft ones."""
        mine = self._met[tenant]
        mine.update(dict.fromkeys(limits))
        while len(mine) > _REMEMBERED:
            del mine[next(iter(mine))]

    def take_met(self, tenant: str) -> Sequence[Passed]:
        """The limits met since this was asked last."""
        return tuple(self._met.pop(tenant, ()))

    async def about(self, tenant: str, scopes: Iterable[str]) -> tuple[Alert, ...]:
        """The alerts that ask something of calls on these scopes."""
        now = self._clock.monotonic()
        known = self._known.get(tenant)
        if known is None or now - known[0] >= _FRESH_FOR:
            known = (now, await self._reports.active(tenant, now=self._clock.now()))
            self._known[tenant] = known
        return tuple(alert for alert in known[1] if alert.subject in scopes)


@dataclass(frozen=True, slots=True)
class Watchfulness:
    """What is worth an alert."""

    rules: tuple[Rule, ...]
    downgrade_for: timedelta
    anomaly_floor: int  # micro-USD; a smaller difference is nobody's concern
    most_entries: int = 200_000  # of two hours that are read one by one; of more the hourly sums must do


class Lookout:
    """Looks at one tenant at a time and raises alerts."""

    def __init__(
        self,
        store: CostStore,
        reports: ReportStore,
        series: Reports,
        board: AlertBoard,
        watchfulness: Watchfulness,
        *,
        clock: Clock,
        ids: Ids,
        tell: Tell = untold,
    ) -> None:
        self._store = store
        self._tell = tell
        self._reports = reports
        self._series = series
        self._board = board
        self._watchfulness = watchfulness
        self._clock = clock
        self._ids = ids
        self._judged: dict[str, datetime] = {}

    async def look(self, tenant: str) -> list[Alert]:
        """Reclaims, looks at limits, velocity and, once an hour, for anomalies; the alerts that are new."""
        now = self._clock.now()
        seen = [
            *await self._unsettled(tenant, now),
            *await self._limits(tenant, now),
            *await self._velocity(tenant, now),
            *await self._anomalies(tenant, now),
        ]
        raised = [alert for alert in seen if await self._reports.raise_alert(tenant, alert)]
        for alert in raised:
            log.warning("cost.alert", tenant=tenant, kind=alert.kind, subject=alert.subject, text=alert.explanation)
        for happened in await spikes(self._store, tenant, raised, now):
            self._tell(tenant, happened, f"{happened.session_id} {happened.agent}")
        return raised

    async def _unsettled(self, tenant: str, now: datetime) -> list[Alert]:
        freed = await self._store.reclaim(tenant, now=now)
        if not freed:
            return []
        text = f"Leases of {dollars(freed)} ended without a settlement; their generations may still run or were lost."
        return [self._alert(AlertKind.UNSETTLED, scope(Level.TENANT, ""), freed, 0, text, once=f"{now:%Y-%m-%dT%H}")]

    async def _limits(self, tenant: str, now: datetime) -> list[Alert]:
        budgets = await self._store.budgets(tenant, page=_ALL_BUDGETS, now=now)
        spent = {(one.id, scope(one.limits.level, one.name)): one.settled + one.leased for one in budgets}
        seen = [(one, True) for one in self._board.take_met(tenant)]
        seen += [(one, False) for one in map(_beyond, budgets) if one]
        return [self._limit(one, spent.get((one.budget_id, one.scope), one.amount), now, met=met) for one, met in seen]

    def _limit(self, limit: Passed, spent: int, now: datetime, *, met: bool) -> Alert:
        """Of a limit that is spent, or that calls have met: of that anything may be left, only not enough for them."""
        subject, most = f"{limit.scope} ({limit.window})", dollars(limit.amount)
        once = f"{limit.budget_id}|{limit.scope}|{limit.window.bounds(now)[0]:%Y-%m-%dT%H}|{limit.amount}"
        kind = AlertKind.SOFT_LIMIT if limit.action else AlertKind.HARD_LIMIT
        if limit.action:
            text = f"{subject} is beyond the soft limit of its budget: {dollars(spent)} of {most}."
        elif met:
            once += "|refused"
            text = f"Calls are refused: the budget of {subject}, {most}, has no room for them."
        else:
            text = f"The budget of {subject} is spent: {dollars(spent)} of {most}."
        return self._alert(kind, limit.scope, spent, limit.amount, text, once=once)

    async def _velocity(self, tenant: str, now: datetime) -> list[Alert]:
        paces = await self._paces(tenant, now)
        rules = self._watchfulness.rules
        if not speeding(paces, rules):
            return []
        known = await self._usual(tenant, now)
        found = speeding(paces, rules, lambda kind, subject: known.get((kind, subject), 0))
        return [self._speeding(one, now) for one in found]

    async def _paces(self, tenant: str, now: datetime) -> Sequence[Pace]:
        hour = now.replace(minute=0, second=0, microsecond=0)
        recent = Filter(start=hour - HOUR, end=hour + HOUR)
        sums = await self._store.summarize(tenant, recent, group_by=("agent", "hour"), page=_ALL_BUDGETS)
        if sum(one.generations for one in sums) <= self._watchfulness.most_entries:
            return await self._reports.paces(tenant, since=now - STEPS * STEP, now=now, step=STEP)
        return coarse(sums, now)

    async def _usual(self, tenant: str, now: datetime) -> dict[tuple[AlertKind, str], int]:
        """Five minutes' worth of the dearest same hour of the last seven days."""
        usual: dict[tuple[AlertKind, str], int] = {}
        for back in range(1, 8):
            start = now.replace(minute=0, second=0, microsecond=0) - timedelta(days=back)
            day = Filter(start=start, end=start + HOUR)
            agents = await self._store.summarize(tenant, day, group_by=("agent",), page=_ALL_BUDGETS)
            totals = await self._store.summarize(tenant, day, group_by=(), page=_ALL_BUDGETS)
            for one in (*agents, *totals):
                subject = scope(Level.AGENT, one.group[0]) if one.group else scope(Level.TENANT, "")
                amounts = {
                    AlertKind.VELOCITY: one.micros_usd,
                    AlertKind.TOKEN_SPIKE: one.input_tokens + one.output_tokens,
                }
                for kind, amount in amounts.items():
                    usual[kind, subject] = max(usual.get((kind, subject), 0), amount // STEPS)
        return usual

    def _speeding(self, found: Speeding, now: datetime) -> Alert:
        tokens = found.kind is AlertKind.TOKEN_SPIKE
        much, usual = (f"{one:,} tokens" if tokens else dollars(one) for one in (found.observed, found.usual))
        text = f"{found.subject} took {much} in five minutes; usual are {usual}. New calls should use a cheaper model."
        until = now + self._watchfulness.downgrade_for
        period = (now - datetime.min.replace(tzinfo=now.tzinfo)) // self._watchfulness.downgrade_for
        return self._alert(found.kind, found.subject, found.observed, found.usual, text, once=str(period), until=until)

    async def _anomalies(self, tenant: str, now: datetime) -> list[Alert]:
        hour = now.replace(minute=0, second=0, microsecond=0)
        if self._judged.get(tenant) == hour:
            return []
        _, found = await self._series.series(tenant, Filter(start=hour - timedelta(days=1), end=hour))
        self._judged[tenant] = hour
        return [self._anomaly(one) for one in found if self._matters(one)]

    def _matters(self, found: Anomaly) -> bool:
        """Silence and drops are worth a look however little they save."""
        less = found.kind in (Kind.SILENCE, Kind.DROP)
        return less or abs(found.spent - found.expected) >= self._watchfulness.anomaly_floor

    def _anomaly(self, found: Anomaly) -> Alert:
        once = f"{found.start:%Y-%m-%dT%H}"
        text, subject = found.explanation, scope(Level.TENANT, "")
        return self._alert(AlertKind.ANOMALY, subject, found.spent, found.expected, text, once=once)

    def _alert(
        self,
        kind: AlertKind,
        subject: str,
        observed: int,
        expected: int,
        text: str,
        *,
        once: str,
        until: datetime | None = None,
    ) -> Alert:
        return Alert(
            id=self._ids.new("alt"),
            once=f"{kind}|{subject}|{once}",
            kind=kind,
            subject=subject,
            action=SoftAction.DOWNGRADE if until else SoftAction.ALERT,
            observed=observed,
            expected=expected,
            explanation=text,
            created_at=self._clock.now(),
            active_until=until,
        )


def _beyond(budget: Budget) -> Passed | None:
    """The limit of it that is spent."""
    limits, spent = budget.limits, budget.settled + budget.leased
    subject = scope(limits.level, budget.name)
    if spent >= limits.limit:
        return Passed(budget.id, subject, limits.window, limits.limit, None)
    if limits.soft_limit and spent > limits.soft_limit:
        return Passed(budget.id, subject, limits.window, limits.soft_limit, limits.soft_action)
    return None
