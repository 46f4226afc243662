"""What the ledger tells people: series with anomalies, forecasts, how tokens are used, files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from services.cost.anomalies import HISTORY, HOUR, Anomaly, Point, anomalies, explained, judge
from services.cost.budget import Level, Window
from services.cost.export import Format, as_csv, as_lines
from services.cost.export_parquet import as_parquet
from services.cost.forecast import Forecast, forecast
from services.cost.report_store import Pattern, ReportStore
from services.cost.segments import EARLIEST
from services.cost.store import CostEvent, CostStore, Filter
from shared.clock import Clock
from shared.paging import MAX_PAGE_SIZE, Page

_EVERYTHING: Final = Page(1_000_000)
_WEEK: Final = timedelta(days=7)
_HISTORY: Final = HISTORY + 2 * _WEEK  # what a verdict looks back on: four weeks, and two of residuals that need them


class Reports:
    """Reads the ledgers of all tenants, one tenant a call."""

    def __init__(self, store: CostStore, reports: ReportStore, *, clock: Clock) -> None:
        self._store = store
        self._reports = reports
        self._clock = clock

    async def series(self, tenant: str, chosen: Filter) -> tuple[Sequence[Point], Sequence[Anomaly]]:
        """The hours of the filter's span with what was to be expected, and what stands out, explained."""
        start, end = _hour(chosen.start or EARLIEST), _hour(chosen.end or self._clock.now())
        hours = await self.hours(tenant, replace(chosen, start=start - _HISTORY, end=end))
        times = [start - _HISTORY + step * HOUR for step in range((end - start + _HISTORY) // HOUR)]
        spent = [hours.get(at, 0) for at in times]
        # Before the first entry nothing is usual, and an hour that goes on is not judged yet.
        begins = next((step for step, value in enumerate(spent) if value), len(times))
        ends = max(begins, sum(at + HOUR <= self._clock.now() for at in times))
        judged = await asyncio.to_thread(judge, times[0] + begins * HOUR, spent[begins:ends])
        unjudged = [Point(at, value) for at, value in zip(times, spent, strict=True)]
        points = [*unjudged[:begins], *judged, *unjudged[ends:]]
        found = [one for one in anomalies(points) if one.end > start]
        return (
            [point for point in points if point.at >= start],
            [await self._explained(tenant, chosen, one) for one in found],
        )

    async def hours(self, tenant: str, chosen: Filter) -> Mapping[datetime, int]:
        """What was spent in each hour that has entries."""
        found = await self._store.summarize(tenant, chosen, group_by=("hour",), page=_EVERYTHING)
        return {datetime.fromisoformat(f"{one.group[0]}:00+00:00"): one.micros_usd for one in found}

    async def forecast(self, tenant: str, window: Window) -> tuple[Forecast, datetime, datetime]:
        """What the window that holds this instant will have cost, and when it began and ends."""
        now = self._clock.now()
        began, end = window.bounds(now)
        assert end is not None  # noqa: S101 - TOTAL is refused at the border
        first = _hour(now) - HISTORY
        hours = await self.hours(tenant, Filter(start=first, end=_hour(now)))
        known = min(hours, default=_hour(now))
        values = [hours.get(known + step * HOUR, 0) for step in range((_hour(now) - known) // HOUR)]
        spent = await self._store.summarize(tenant, Filter(start=began), group_by=(), page=Page(1))
        budget = await self._store.budget(tenant, Level.TENANT, "", window, now=now)
        limit = budget.limits.limit if budget else None
        total = sum(one.micros_usd for one in spent)
        return forecast(known, values, spent=total, now=now, end=end, limit=limit), began, end

    async def patterns(self, tenant: str, group: str, start: datetime, end: datetime) -> Sequence[Pattern]:
        """How groups use tokens, those with the most first."""
        return await self._reports.patterns(tenant, group, start, end)

    async def export(self, tenant: str, chosen: Filter, kind: Format) -> AsyncGenerator[bytes, None]:
        """The entries as a file, oldest first, in pieces; a file of no entries still says what its columns are."""
        async with aclosing(self._pages(tenant, chosen)) as pages:
            if kind is Format.PARQUET:
                async with aclosing(as_parquet(pages)) as pieces:
                    async for piece in pieces:
                        yield piece
                return
            header = True
            async for page in pages:
                yield as_lines(page) if kind is Format.LINES else as_csv(page, header=header)
                header = False

    async def _pages(self, tenant: str, chosen: Filter) -> AsyncGenerator[Sequence[CostEvent], None]:
        """At least one, which may be empty."""
        cursor: tuple[str, ...] = ()
        while True:
            found = await self._store.events(tenant, chosen, newest_first=False, page=Page(MAX_PAGE_SIZE, cursor))
            shown = found[:MAX_PAGE_SIZE]
            yield shown
            if len(found) <= MAX_PAGE_SIZE:
                return
            cursor = (shown[-1].created_at.isoformat(), shown[-1].id)

    async def _explained(self, tenant: str, chosen: Filter, found: Anomaly) -> Anomaly:
        now = await self._parts(tenant, replace(chosen, start=found.start, end=found.end))
        before = await self._parts(tenant, replace(chosen, start=found.start - _WEEK, end=found.end - _WEEK))
        names = dict.fromkeys((*now, *before))
        return explained(found, [(name, now.get(name, 0), before.get(name, 0)) for name in names])

    async def _parts(self, tenant: str, chosen: Filter) -> Mapping[str, int]:
        found = await self._store.summarize(tenant, chosen, group_by=("agent", "provider", "model"), page=Page(100))
        return {
            f"{agent or 'no agent'} on {provider}/{model}": one.micros_usd
            for one in found
            for agent, provider, model in [one.group]
        }


def _hour(at: datetime) -> datetime:
    return at - (at - EARLIEST) % HOUR
