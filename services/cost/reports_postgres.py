"""The real store of reports and alerts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from asyncpg import Record

from services.cost.budget import SoftAction
from services.cost.report_store import Alert, AlertKind, Pace, Pattern
from services.cost.store_postgres import SQL
from shared.paging import Page
from shared.postgres import Database

_MOST_GROUPS: Final = 100


class PostgresReportStore:
    """The schema `cost`, read."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def paces(self, tenant: str, *, since: datetime, now: datetime, step: timedelta) -> Sequence[Pace]:
        async with self._database.tenant(tenant) as connection:
            found = await connection.fetch(SQL["paces"], since, now, step.total_seconds())
        return [Pace(**row) for row in found]

    async def patterns(self, tenant: str, group: str, start: datetime, end: datetime) -> Sequence[Pattern]:
        hours: defaultdict[str, list[int]] = defaultdict(lambda: [0] * 24)
        async with self._database.tenant(tenant) as connection:
            found = await connection.fetch(SQL["patterns"], group, start, end, _MOST_GROUPS)
            for row in await connection.fetch(SQL["pattern_hours"], group, start, end):
                hours[row["group"]][row["hour"]] = row["tokens"]
        return [Pattern(**row, by_hour=tuple(hours[row["group"]])) for row in found]

    async def raise_alert(self, tenant: str, alert: Alert) -> bool:
        async with self._database.tenant(tenant) as connection:
            written = await connection.fetchval(
                SQL["raise_alert"], tenant, alert.id, alert.once, alert.kind, alert.subject, alert.action,
                alert.observed, alert.expected, alert.explanation, alert.created_at, alert.active_until,
            )  # fmt: skip
        return written is not None

    async def alerts(self, tenant: str, kind: str, page: Page) -> Sequence[Alert]:
        async with self._database.tenant(tenant) as connection:
            found = await connection.fetch(SQL["list_alerts"], kind, *page.place, page.size + 1)
        return [_alert(row) for row in found]

    async def active(self, tenant: str, *, now: datetime) -> Sequence[Alert]:
        async with self._database.tenant(tenant) as connection:
            found = await connection.fetch(SQL["active_alerts"], now)
        return [_alert(row) for row in found]


def _alert(row: Record) -> Alert:
    return Alert(
        id=row["id"],
        once=row["once"],
        kind=AlertKind(row["kind"]),
        subject=row["subject"],
        action=SoftAction(row["action"]),
        observed=row["observed"],
        expected=row["expected"],
        explanation=row["explanation"],
        created_at=row["created_at"],
        active_until=row["active_until"],
    )
