"""The real store of the audit: one row an entry, which the service's role cannot change."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from services.gateway.audit import AuditEntry, AuditFilter
from shared.paging import Page
from shared.postgres import Database, load_queries

_SQL = load_queries(Path(__file__).with_name("audit.sql"))
_COLUMNS = ("id", "created_at", "subject", "action", "target", "reason", "address", "request_id")


class PostgresAuditStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, tenant: str, entries: Sequence[AuditEntry]) -> None:
        rows = [(tenant, *(getattr(entry, column) for column in _COLUMNS)) for entry in entries]
        async with self._database.tenant(tenant) as connection:
            await connection.executemany(_SQL["add"], rows)

    async def entries(self, tenant: str, wanted: AuditFilter, page: Page) -> Sequence[AuditEntry]:
        seen = page.place
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(
                _SQL["entries"], wanted.action, wanted.subject, wanted.start, wanted.end, *seen, page.size + 1
            )
        return [AuditEntry(**{column: row[column] for column in _COLUMNS}) for row in rows]
