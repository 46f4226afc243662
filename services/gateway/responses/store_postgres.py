"""The real store: the schema `gateway`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from services.gateway.responses.store import KEPT, LONGEST, Record
from shared.postgres import Database, load_queries

_SQL = load_queries(Path(__file__).with_name("queries.sql"))


class PostgresResponseStore:
    """One row a response."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, tenant: str, record: Record) -> None:
        async with self._database.tenant(tenant) as connection:
            await connection.execute(_SQL["expire"], record.created_at - KEPT)
            await connection.execute(
                _SQL["begin"], tenant, record.id, record.previous_id, record.work_id, record.background,
                record.created_at, record.asked,
            )  # fmt: skip

    async def finish(self, tenant: str, response_id: str, answer: bytes) -> bool:
        async with self._database.tenant(tenant) as connection:
            return bool(await connection.execute(_SQL["finish"], response_id, answer) == "UPDATE 1")

    async def chain(self, tenant: str, response_id: str) -> Sequence[Record]:
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(_SQL["chain"], response_id, LONGEST)
        return [_record(row) for row in rows]

    async def forget(self, tenant: str, response_id: str) -> bool:
        async with self._database.tenant(tenant) as connection:
            return bool(await connection.execute(_SQL["forget"], response_id) == "DELETE 1")


def _record(row: Any) -> Record:
    return Record(
        id=row["id"],
        previous_id=row["previous_id"],
        work_id=row["work_id"],
        background=row["background"],
        created_at=row["created_at"],
        asked=row["asked"],
        answer=row["answer"],
    )
