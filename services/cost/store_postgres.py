"""The real ledger: money is counted inside the database, many calls a round trip."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from asyncpg import Record, UniqueViolationError

from services.cost import rows
from services.cost.budget import PURSES_LAST, Budget, Level, Limits, Window, scope
from services.cost.redo import Redo, Statement
from services.cost.store import (
    Ask,
    CostEvent,
    Extension,
    Filter,
    Lease,
    Settled,
    StoredBook,
    Summary,
    Taken,
)
from shared.batches import TenantBatches
from shared.identity import Purse
from shared.paging import Page
from shared.postgres import REFUSED, Connection, Database, Queries, load_queries

SQL: Final[Queries] = load_queries(Path(__file__).with_name("queries.sql"))
_MOST: Final = 128
_FORGET_AFTER: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class _Taking:
    """A batch of leases, to be done again if Postgres dies."""

    tenant: str
    now: datetime
    asked: Sequence[Sequence[object]]

    async def again(self, connection: Connection) -> None:
        await connection.fetch(SQL["take"], self.tenant, True, self.now, self.asked)  # noqa: FBT003 - SQL's parameter


@dataclass(frozen=True, slots=True)
class _Settling:
    """A batch of entries, to be done again if Postgres dies."""

    tenant: str
    given: Sequence[tuple[Sequence[object], Sequence[str]]]

    async def again(self, connection: Connection) -> None:
        await connection.fetch(SQL["settle"], self.tenant, True, self.given)  # noqa: FBT003 - SQL's parameter


class PostgresCostStore:
    """The schema `cost`. Commits wait for the disk themselves unless a running `redo` watches over them."""

    def __init__(self, database: Database, redo: Redo | None = None) -> None:
        self.database = database
        self._redo = redo
        self._takes = TenantBatches(self._take, most=_MOST, faults=REFUSED)
        self._settles = TenantBatches(self._settle, most=_MOST, faults=REFUSED)

    async def take(self, tenant: str, ask: Ask, *, now: datetime) -> Taken:
        found = await self._takes.ask(tenant, (ask, now))
        assert found is not None  # noqa: S101 - only an extension can be of nothing
        return found

    async def extend(self, tenant: str, extension: Extension, *, now: datetime) -> Taken | None:
        return await self._takes.ask(tenant, (extension, now))

    async def settle(self, tenant: str, event: CostEvent) -> Settled:
        return await self._settles.ask(tenant, event)

    async def reclaim(self, tenant: str, *, now: datetime) -> int:
        async with self.database.tenant(tenant) as connection:
            freed = await self._reclaim(connection, tenant, now)
            await connection.execute(SQL["roll_up"], tenant)
        return freed

    async def summarize(self, tenant: str, chosen: Filter, *, group_by: Sequence[str], page: Page) -> Sequence[Summary]:
        asked = rows.summed_by(chosen, group_by)
        async with self.database.tenant(tenant) as connection:
            await connection.execute(SQL["plan_for_these"])  # columns not grouped by are planned away
            found = await connection.fetch(SQL["summarize"], *asked, page.skip, page.size + 1)
        return [_summary(row, group_by) for row in found]

    async def events(self, tenant: str, chosen: Filter, *, newest_first: bool, page: Page) -> Sequence[CostEvent]:
        query = SQL["newest_events" if newest_first else "oldest_events"]
        async with self.database.tenant(tenant) as connection:
            found = await connection.fetch(query, *rows.chosen_by(chosen), *page.place, page.size + 1)
        return [rows.cost_event(row) for row in found]

    async def budget(self, tenant: str, level: Level, name: str, window: Window, *, now: datetime) -> Budget | None:
        async with self.database.tenant(tenant) as connection:
            await self._reclaim(connection, tenant, now)
            row = await connection.fetchrow(SQL["get_budget"], scope(level, name), window, now)
        return rows.budget(row) if row else None

    async def budgets(self, tenant: str, *, page: Page, now: datetime) -> Sequence[Budget]:
        async with self.database.tenant(tenant) as connection:
            await self._reclaim(connection, tenant, now)
            found = await connection.fetch(SQL["list_budgets"], now, page.skip, page.size + 1)
        return [rows.budget(row) for row in found]

    async def open_purses(self, tenant: str, purses: Sequence[Purse], *, now: datetime) -> None:
        ids, limits = [purse.id for purse in purses], [purse.micros_usd for purse in purses]
        async with self.database.tenant(tenant) as connection:
            await connection.execute(SQL["open_purses"], tenant, ids, limits, now)

    async def set_budget(self, tenant: str, budget_id: str, limits: Limits, *, now: datetime) -> Budget:
        async with self.database.tenant(tenant) as connection:
            await connection.execute(SQL["lock_budgets"], tenant)
            await connection.fetchval(SQL["reclaim"], tenant, now)
            known = await connection.fetchval(
                SQL["put_budget"], tenant, budget_id, limits.scope, limits.window, limits.limit, limits.soft_limit,
                limits.soft_action, now,
            )  # fmt: skip
            if not rows.is_each(limits):
                counter = await connection.fetchval(SQL["begin_budget"], known, now)
                if counter is not None:
                    await connection.execute(SQL["count_leases"], counter, limits.scope, now)
            (row,) = await connection.fetch(SQL["get_budget"], limits.scope, limits.window, now)
        return rows.budget(row)

    async def delete_budget(self, tenant: str, budget_id: str) -> bool:
        async with self.database.tenant(tenant) as connection:
            await connection.execute(SQL["lock_budgets"], tenant)
            return await connection.fetchval(SQL["delete_budget"], budget_id) is not None

    async def approve(self, tenant: str, budget_id: str, name: str, *, now: datetime) -> Window | None:
        async with self.database.tenant(tenant) as connection:
            await connection.fetchrow(SQL["lock_counters"], tenant)
            await connection.execute(SQL["approve"], budget_id, name, now)
            period = await connection.fetchval(SQL["budget_period"], budget_id)
        return Window(period) if period else None

    async def adopt_prices(self, tenant: str, book: StoredBook) -> None:
        async with self.database.tenant(tenant) as connection:
            await connection.execute(SQL["adopt_prices"], tenant, book.version, book.document, book.created_at)

    async def price_book(self, tenant: str, version: str) -> StoredBook | None:
        async with self.database.tenant(tenant) as connection:
            row = await connection.fetchrow(SQL["price_book"], tenant, version)
        return StoredBook(**row) if row else None

    async def _take(self, tenant: str, asks: Sequence[tuple[Ask | Extension, datetime]]) -> Sequence[Taken | None]:
        batch = _Taking(tenant, max(now for _, now in asks), [rows.asked(ask) for ask, _ in asks])
        if len(asks) == 1 and isinstance(alone := asks[0][0], Ask):
            asked = batch.asked[0]
            found = await self._alone(batch, "take_lease", tenant, self._durable, batch.now, *asked)
            if found and (micros := found[0][0]) is not None:
                return [Taken(Lease(alone.generation_id, micros, alone.expires_at))]
        found = await self._change(batch, "take", tenant, self._durable, batch.now, batch.asked)
        by_place = {row["place"]: row for row in found}
        return [rows.taken(ask.generation_id, by_place[place]) for place, (ask, _) in enumerate(asks, 1)]

    async def _settle(self, tenant: str, events: Sequence[CostEvent]) -> Sequence[Settled]:
        batch = _Settling(tenant, [rows.settlement(tenant, event) for event in events])
        if len(events) == 1:
            row, keys = batch.given[0]
            if await self._alone(batch, "settle_event", self._durable, *rows.entry_alone(row), keys):
                return [Settled(events[0], fresh=True)]
        found = await self._change(batch, "settle", tenant, self._durable, batch.given)
        known = {(row["generation_id"], row["attempt"]): rows.cost_event(row) for row in found}
        answers = []
        for event in events:
            first = known.get((event.call.generation_id, event.call.attempt))
            answers.append(Settled(first or event, fresh=first is None or first.id == event.id))
        return answers

    @property
    def _durable(self) -> bool:
        return self._redo is None or self._redo.durable

    async def _alone(self, change: Statement, query: str, *arguments: object) -> Sequence[Record]:
        """As _change; nothing when there is such a lease or entry already."""
        with suppress(UniqueViolationError):
            return await self._change(change, query, *arguments)
        return ()

    async def _change(self, change: Statement, query: str, *arguments: object) -> Sequence[Record]:
        """What the query answers, and its change kept until it is on the disk."""
        durable = self._durable
        found = await self.database.statement(SQL[query], *arguments)
        if self._redo and not durable:
            self._redo.keep(change)
        return found

    async def _reclaim(self, connection: Connection, tenant: str, now: datetime) -> int:
        await connection.fetchrow(SQL["lock_counters"], tenant)
        freed: int = await connection.fetchval(SQL["reclaim"], tenant, now)
        await connection.execute(SQL["forget_leases"], now - _FORGET_AFTER)
        await connection.execute(SQL["forget_purses"], now - PURSES_LAST)
        return freed


def _summary(row: Any, names: Sequence[str]) -> Summary:
    return Summary(
        group=tuple(row[name] for name in names),
        micros_usd=row["micros_usd"],
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        cached_input_tokens=row["cached_input_tokens"],
        reasoning_tokens=row["reasoning_tokens"],
        generations=row["generations"],
        estimated=row["estimated"],
    )
