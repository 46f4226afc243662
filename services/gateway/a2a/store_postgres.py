"""The real store: the schema `gateway`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from services.gateway.a2a.store import Record, Sought
from shared.paging import Page
from shared.postgres import Database, load_queries

_SQL = load_queries(Path(__file__).with_name("queries.sql"))


class PostgresA2aStore:
    """One row a task, one an address."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def save(self, tenant: str, record: Record) -> None:
        async with self._database.tenant(tenant) as connection:
            await connection.execute(
                _SQL["save"], tenant, record.id, record.context_id, record.agent, record.work_id, record.state,
                record.updated_at, record.task,
            )  # fmt: skip

    async def find(self, tenant: str, task_id: str) -> Record | None:
        async with self._database.tenant(tenant) as connection:
            row = await connection.fetchrow(_SQL["find"], task_id)
        return _record(row) if row else None

    async def search(self, tenant: str, sought: Sought, page: Page) -> tuple[Sequence[Record], int]:
        narrow = (sought.agent, sought.context_id, sought.state, sought.changed_since)
        seen = page.place
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(_SQL["search"], *narrow, *seen, page.size + 1)
            total = await connection.fetchval(_SQL["count"], *narrow)
        return [_record(row) for row in rows], int(total)

    async def put_address(self, tenant: str, task_id: str, address_id: str, config: bytes) -> None:
        async with self._database.tenant(tenant) as connection:
            await connection.execute(_SQL["put_address"], tenant, task_id, address_id, config)

    async def addresses(self, tenant: str, task_id: str) -> Sequence[bytes]:
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(_SQL["addresses"], task_id)
        return [row["config"] for row in rows]

    async def delete_address(self, tenant: str, task_id: str, address_id: str) -> None:
        async with self._database.tenant(tenant) as connection:
            await connection.execute(_SQL["delete_address"], task_id, address_id)


def _record(row: Any) -> Record:
    return Record(
        id=row["id"],
        context_id=row["context_id"],
        agent=row["agent"],
        work_id=row["work_id"],
        state=row["state"],
        updated_at=row["updated_at"],
        task=row["task"],
    )
