"""The honest fake of reports and alerts, over the ledger in memory."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta

from services.cost.report_store import Alert, Pace, Pattern
from services.cost.store import CostEvent, Filter
from services.cost.store_memory import MemoryCostStore
from shared.paging import Page

_MOST_GROUPS = 100
_MICROSECOND = timedelta(microseconds=1)


class MemoryReportStore:
    """Everything is gone when the process ends."""

    def __init__(self, ledger: MemoryCostStore) -> None:
        self._ledger = ledger
        self._alerts: defaultdict[str, dict[str, Alert]] = defaultdict(dict)

    async def paces(self, tenant: str, *, since: datetime, now: datetime, step: timedelta) -> Sequence[Pace]:
        micros: Counter[tuple[str, int]] = Counter()
        tokens: Counter[tuple[str, int]] = Counter()
        for event in self._ledger.chosen(tenant, Filter(start=since + _MICROSECOND, end=now + _MICROSECOND)):
            key = (event.call.path.agent, (now - event.created_at) // step)
            micros[key] += event.micros_usd
            tokens[key] += _tokens(event)
        return [Pace(agent, ago, micros[agent, ago], tokens[agent, ago]) for agent, ago in micros]

    async def patterns(self, tenant: str, group: str, start: datetime, end: datetime) -> Sequence[Pattern]:
        groups: defaultdict[str, list[CostEvent]] = defaultdict(list)
        for event in self._ledger.chosen(tenant, Filter(start=start, end=end)):
            groups[_group(event, group)].append(event)
        found = [_pattern(name, events) for name, events in groups.items()]
        return sorted(found, key=lambda one: (-one.input_tokens - one.output_tokens, one.group))[:_MOST_GROUPS]

    async def raise_alert(self, tenant: str, alert: Alert) -> bool:
        if alert.once in self._alerts[tenant]:
            return False
        self._alerts[tenant][alert.once] = alert
        return True

    async def alerts(self, tenant: str, kind: str, page: Page) -> Sequence[Alert]:
        found = sorted(self._alerts[tenant].values(), key=_place, reverse=True)
        at, seen = page.place
        kept = [one for one in found if kind in ("", one.kind) and (at is None or _place(one) < (at, seen))]
        return kept[: page.size + 1]

    async def active(self, tenant: str, *, now: datetime) -> Sequence[Alert]:
        found = sorted(self._alerts[tenant].values(), key=_place, reverse=True)
        return [one for one in found if one.active_until and one.active_until > now]


def _pattern(name: str, events: Sequence[CostEvent]) -> Pattern:
    inputs = sorted(event.usage.input_tokens for event in events)
    outputs = sorted(event.usage.output_tokens for event in events)
    by_hour = [0] * 24
    for event in events:
        by_hour[event.created_at.hour] += _tokens(event)
    return Pattern(
        group=name,
        generations=len(events),
        input_tokens=sum(inputs),
        output_tokens=sum(outputs),
        input_p50=_percentile(inputs, 50),
        input_p95=_percentile(inputs, 95),
        output_p50=_percentile(outputs, 50),
        output_p95=_percentile(outputs, 95),
        cached_tokens=sum(event.usage.cached_input_tokens for event in events),
        reasoning_tokens=sum(event.usage.reasoning_tokens for event in events),
        micros_usd=sum(event.micros_usd for event in events),
        by_hour=tuple(by_hour),
    )


def _percentile(ordered: Sequence[int], percent: int) -> int:
    """The first value that at least this share of all is not above, as percentile_disc has it."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def _group(event: CostEvent, group: str) -> str:
    match group:
        case "provider" | "model":
            return str(getattr(event.call, group))
        case "agent" | "user" | "team":
            return str(getattr(event.call.path, group))
        case _:
            return ""


def _tokens(event: CostEvent) -> int:
    return event.usage.input_tokens + event.usage.output_tokens


def _place(alert: Alert) -> tuple[datetime, str]:
    return alert.created_at, alert.id
