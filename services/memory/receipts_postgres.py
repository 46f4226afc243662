"""Receipts of deletions, written in the transaction that deletes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from services.memory.receipts import ReceiptFilter
from services.memory.store import Receipt
from shared.paging import Page
from shared.postgres import Connection, Database, load_queries

_SQL = load_queries(Path(__file__).with_name("receipts.sql"))


class PostgresReceipts:
    """The table `forget_receipt` of the schema `memory`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, tenant: str, receipt_id: str) -> Receipt | None:
        async with self._database.tenant(tenant) as connection:
            row = await connection.fetchrow(_SQL["find"], tenant, receipt_id)
        return Receipt(**row) if row else None

    async def every(self, tenant: str, chosen: ReceiptFilter, page: Page) -> Sequence[Receipt]:
        given = (tenant, chosen.subject_id, chosen.requested_by, *page.place, page.size + 1)
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(_SQL["every"], *given)
        return [Receipt(**row) for row in rows]


async def add_receipts(connection: Connection, tenant: str, receipts: Sequence[Receipt]) -> None:
    """All of one request: they share who asked and when."""
    if receipts:
        await connection.execute(
            _SQL["add"], tenant, [one.id for one in receipts], [one.subject_id for one in receipts],
            [one.content_sha256 for one in receipts], receipts[0].requested_by, receipts[0].deleted_at,
        )  # fmt: skip
