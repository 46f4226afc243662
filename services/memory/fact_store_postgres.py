"""The real fact store: the table `fact` of the schema `memory`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from services.memory.bounds import Kept
from services.memory.fact_store import Fact, FactFilter, Recorded
from services.memory.receipts_postgres import add_receipts
from services.memory.store import Receipt
from shared.paging import Page
from shared.postgres import Connection, Database, load_queries

_SQL = load_queries(Path(__file__).with_name("facts.sql"))


class PostgresFactStore:
    """Writers of the same subject and relation wait for each other, so that one object at a time holds."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, tenant: str, facts: Sequence[Fact]) -> Sequence[Recorded]:
        async with self._database.tenant(tenant) as connection:
            for subject, relation in sorted({(fact.subject, fact.relation) for fact in facts}):
                await connection.execute(_SQL["lock"], tenant, subject, relation)
            return [await _record(connection, tenant, fact) for fact in facts]

    async def find(self, tenant: str, fact_id: str) -> Fact | None:
        async with self._database.tenant(tenant) as connection:
            row = await connection.fetchrow(_SQL["find"], tenant, fact_id)
        return _fact(row) if row else None

    async def every(self, tenant: str, chosen: FactFilter, page: Page) -> Sequence[Fact]:
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(
                _SQL["every"], tenant, chosen.subject, chosen.relation, chosen.object, chosen.valid_at, chosen.as_of,
                page.skip or None, page.size + 1,
            )  # fmt: skip
        return [_fact(row) for row in rows]

    async def touching(self, tenant: str, entities: Sequence[str], *, valid_at: datetime, limit: int) -> Sequence[Fact]:
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(_SQL["touching"], tenant, list(entities), valid_at, limit)
        return [_fact(row) for row in rows]

    async def end(self, tenant: str, fact_id: str, *, valid_to: datetime, now: datetime) -> Fact | None:
        async with self._database.tenant(tenant) as connection:
            await connection.execute(_SQL["end"], tenant, fact_id, valid_to, now)
            row = await connection.fetchrow(_SQL["find"], tenant, fact_id)
        return _fact(row) if row else None

    async def forget(self, tenant: str, facts: Sequence[Fact], receipts: Sequence[Receipt]) -> int:
        async with self._database.tenant(tenant) as connection:
            gone = await connection.fetch(_SQL["forget"], tenant, [fact.id for fact in facts])
            await add_receipts(connection, tenant, receipts)
        return len(gone)

    async def kept(self, tenant: str, *, ended_by: datetime | None) -> Kept:
        async with self._database.tenant(tenant) as connection:
            (row,) = await connection.fetch(_SQL["kept"], tenant, ended_by)
        return Kept(**row)

    async def outlived(self, tenant: str, *, before: datetime, ended_by: datetime | None, limit: int) -> Sequence[Fact]:
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(_SQL["outlived"], tenant, before, ended_by, limit)
        return [_fact(row) for row in rows]

    async def surplus(
        self, tenant: str, *, at_most: int, ended_by: datetime | None, now: datetime, limit: int
    ) -> Sequence[Fact]:
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(_SQL["surplus"], tenant, at_most, ended_by, limit, now)
        return [_fact(row) for row in rows]


async def _record(connection: Connection, tenant: str, fact: Fact) -> Recorded:
    rows = await connection.fetch(_SQL["rivals"], tenant, fact.subject, fact.relation, fact.valid_from)
    rivals = [_fact(row) for row in rows]
    for rival in rivals:
        if rival.object == fact.object:
            return Recorded(rival, [])
    ended: list[Fact] = []
    if rivals and not fact.several:
        ids = [rival.id for rival in rivals]
        closed = await connection.fetch(_SQL["supersede"], tenant, ids, fact.valid_from, fact.recorded_at, fact.id)
        ended = [_fact(row) for row in closed]
    until = fact.valid_to
    if not fact.several:
        # A fact told late holds only until the one known to follow it.
        later = await connection.fetchval(_SQL["next"], tenant, fact.subject, fact.relation, fact.valid_from)
        until = min(filter(None, (until, later)), default=None)
    row = await connection.fetchrow(
        _SQL["add"], tenant, fact.id, fact.subject, fact.relation, fact.object, fact.several, fact.valid_from, until,
        fact.recorded_at, fact.confidence, fact.session_id, fact.turn_id, fact.agent, fact.policy_version,
    )  # fmt: skip
    return Recorded(_fact(row), ended)


def _fact(row: Any) -> Fact:
    return Fact(
        id=row["id"],
        subject=row["subject"],
        relation=row["relation"],
        object=row["object"],
        several=row["several"],
        valid_from=row["valid_from"],
        recorded_at=row["recorded_at"],
        valid_to=row["valid_to"],
        ended_at=row["ended_at"],
        superseded_by=row["superseded_by"],
        confidence=row["confidence"],
        session_id=row["session_id"],
        turn_id=row["turn_id"],
        agent=row["agent_name"],
        policy_version=row["policy_version"],
        place=row["place"],
    )
