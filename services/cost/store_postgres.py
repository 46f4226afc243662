"""The real ledger: one transaction a method, the budget's row locked where money is counted."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from services.cost.prices import Usage
from services.cost.store import Budget, CostEvent, Filter, Lease, Summary
from shared.paging import Page
from shared.postgres import Connection, Database, load_queries

_SQL = load_queries(Path(__file__).with_name("queries.sql"))


class PostgresCostStore:
    """The schema `cost`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def reserve(self, tenant: str, lease: Lease, *, now: datetime) -> bool:
        async with self._database.tenant(tenant) as connection:
            limit = await connection.fetchval(_SQL["lock_budget"])
            if limit is not None:
                await connection.execute(_SQL["drop_ended_leases"], now)
                (spent,) = await connection.fetch(_SQL["spent"], now, lease.generation_id)
                if spent["settled"] + spent["leased"] + lease.micros_usd > limit:
                    return False
            await connection.execute(
                _SQL["put_lease"], tenant, lease.generation_id, lease.provider, lease.model, lease.input_tokens,
                lease.micros_usd, lease.expires_at,
            )  # fmt: skip
        return True

    async def lease(self, tenant: str, generation_id: str) -> Lease | None:
        async with self._database.tenant(tenant) as connection:
            row = await connection.fetchrow(_SQL["get_lease"], generation_id)
        return Lease(**row) if row else None

    async def settle(self, tenant: str, event: CostEvent) -> CostEvent:
        usage = event.usage
        async with self._database.tenant(tenant) as connection:
            await connection.fetchval(_SQL["lock_budget"])
            appended = await connection.fetchval(
                _SQL["append_event"], tenant, event.id, event.generation_id, event.session_id, event.agent,
                event.provider, event.model, usage.input_tokens, usage.output_tokens, usage.cached_input_tokens,
                usage.reasoning_tokens, usage.estimated, event.micros_usd, event.price_version, event.created_at,
            )  # fmt: skip
            await connection.execute(_SQL["drop_lease"], event.generation_id)
            if appended:
                await connection.execute(_SQL["add_spend"], tenant, event.micros_usd)
                return event
            return _event(await connection.fetchrow(_SQL["get_event"], event.generation_id))

    async def summarize(self, tenant: str, chosen: Filter, *, group_by: Sequence[str], page: Page) -> Sequence[Summary]:
        skip = int(page.cursor[0]) if page.cursor else 0
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(_SQL["summarize"], *_filter(chosen), list(group_by), skip, page.size + 1)
        return [
            Summary(
                group=tuple(row[name] for name in group_by),
                micros_usd=row["micros_usd"],
                input_tokens=row["input_tokens"],
                output_tokens=row["output_tokens"],
                generations=row["generations"],
            )
            for row in rows
        ]

    async def events(self, tenant: str, chosen: Filter, *, newest_first: bool, page: Page) -> Sequence[CostEvent]:
        seen: tuple[datetime | None, str] = (None, "")
        if page.cursor:
            seen = (datetime.fromisoformat(page.cursor[0]), page.cursor[1])
        query = _SQL["newest_events" if newest_first else "oldest_events"]
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(query, *_filter(chosen), *seen, page.size + 1)
        return [_event(row) for row in rows]

    async def budget(self, tenant: str, *, now: datetime) -> Budget | None:
        async with self._database.tenant(tenant) as connection:
            return await _budget(connection, now)

    async def set_budget(self, tenant: str, budget_id: str, limit: int, *, now: datetime) -> Budget:
        async with self._database.tenant(tenant) as connection:
            await connection.execute(_SQL["set_budget"], tenant, budget_id, limit, now)
            found = await _budget(connection, now)
        assert found is not None  # noqa: S101 - set in the same transaction
        return found


async def _budget(connection: Connection, now: datetime) -> Budget | None:
    row = await connection.fetchrow(_SQL["get_budget"])
    if row is None:
        return None
    (spent,) = await connection.fetch(_SQL["spent"], now, "")
    return Budget(row["id"], row["limit_micros_usd"], spent["settled"], spent["leased"], row["updated_at"])


def _filter(chosen: Filter) -> tuple[datetime | None, datetime | None, str, str]:
    return chosen.start, chosen.end, chosen.session_id, chosen.model


def _event(row: Any) -> CostEvent:
    return CostEvent(
        id=row["id"],
        generation_id=row["generation_id"],
        session_id=row["session_id"],
        agent=row["agent_name"],
        provider=row["provider"],
        model=row["model"],
        usage=Usage(
            input_tokens=row["tokens_input"],
            output_tokens=row["tokens_output"],
            cached_input_tokens=row["tokens_cached_input"],
            reasoning_tokens=row["tokens_reasoning"],
            estimated=row["estimated"],
        ),
        micros_usd=row["cost_micros_usd"],
        price_version=row["price_version"],
        created_at=row["created_at"],
    )
