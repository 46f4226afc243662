"""Receipts of deletions, written in the transaction that deletes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from services.memory.store import Receipt
from shared.postgres import Connection, load_queries

_SQL = load_queries(Path(__file__).with_name("queries.sql"))


async def add_receipts(connection: Connection, tenant: str, receipts: Sequence[Receipt]) -> None:
    """All of one request: they share who asked and when."""
    if receipts:
        await connection.execute(
            _SQL["add_receipts"], tenant, [one.id for one in receipts], [one.subject_id for one in receipts],
            [one.content_sha256 for one in receipts], receipts[0].requested_by, receipts[0].deleted_at,
        )  # fmt: skip
