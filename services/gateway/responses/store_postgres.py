"""The real store: the schema `gateway`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from services.gateway.responses.store import KEPT, LONGEST, Due, Record
from shared.postgres import Database, load_queries

_SQL = load_queries(Path(__file__).with_name("queries.sql"))


class PostgresResponseStore:
    """One row a response."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, tenant: str, record: Record, *, work: bool = False) -> None:
        async with self._database.tenant(tenant) as connection:
            await connection.execute(_SQL["expire"], record.created_at - KEPT)
            await connection.execute(
                _SQL["begin"], tenant, record.id, record.previous_id, record.work_id, record.background,
                record.created_at, record.asked,
            )  # fmt: skip
            if work:
                await connection.execute(_SQL["queue"], tenant, record.id, record.created_at)

    async def claim(self, now: datetime, until: datetime, *, most: int) -> Sequence[Due]:
        async with self._database.transaction() as connection:
            rows = await connection.fetch(_SQL["claim"], now, until, most)
        return [Due(row["tenant_id"], row["id"], row["claims"]) for row in rows]

    async def renew(self, mine: Sequence[Due], until: datetime) -> Sequence[Due]:
        columns = [one.tenant for one in mine], [one.id for one in mine]
        async with self._database.transaction() as connection:
            rows = await connection.fetch(_SQL["renew"], until, *columns)
        held = {(row["tenant_id"], row["id"]) for row in rows}
        return [one for one in mine if (one.tenant, one.id) in held]

    async def note(self, tenant: str, response_id: str, call: str, outcome: bytes) -> bytes | None:
        async with self._database.tenant(tenant) as connection:
            found: bytes | None = await connection.fetchval(_SQL["note"], response_id, call, outcome)
            return found

    async def noted(self, tenant: str, response_id: str) -> Mapping[str, bytes]:
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(_SQL["noted"], response_id)
        return {row["call"]: row["outcome"] for row in rows}

    async def finish(self, tenant: str, response_id: str, answer: bytes) -> bool:
        async with self._database.tenant(tenant) as connection:
            return bool(await connection.fetchval(_SQL["finish"], response_id, answer))

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
