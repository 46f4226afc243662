"""The real queue: the schema `inference`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from services.inference.queue.store import Claim, Depth, Submitted, Work
from shared.identity import CredentialKind, Grant, Principal
from shared.paging import Page
from shared.postgres import Connection, Database, load_queries

_SQL = load_queries(Path(__file__).with_name("queries.sql"))
_KEPT: Final = timedelta(days=1)


class PostgresQueueStore:
    """One row a generation, and one in the queue while it is to be run."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def submit(self, principal: Principal, generation_id: str, request: bytes) -> None:
        claim = principal.grant.claim() if principal.grant else None
        async with self._database.tenant(principal.tenant_id) as connection:
            await connection.execute(_SQL["forget"], principal.tenant_id, _KEPT)
            await connection.execute(
                _SQL["submit"], principal.tenant_id, generation_id, principal.subject, sorted(principal.roles),
                principal.kind.value, claim, request,
            )  # fmt: skip

    async def find(self, tenant: str, generation_id: str) -> Submitted | None:
        async with self._database.tenant(tenant) as connection:
            row = await connection.fetchrow(_SQL["find"], tenant, generation_id)
        return None if row is None else _submitted(row)

    async def list(self, tenant: str, page: Page, *, still_open: bool) -> Sequence[Submitted]:
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(_SQL["list"], tenant, still_open, *page.place, page.size + 1)
        return [_submitted(row) for row in rows]

    async def depth(self) -> Depth:
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(_SQL["depth"])
        return Depth(row["waiting"], row["running"], row["oldest"]) if row else Depth()

    async def withdraw(self, tenant: str, generation_id: str, failure: bytes) -> bool:
        async with self._database.tenant(tenant) as connection:
            if await connection.fetchval(_SQL["waits"], tenant, generation_id) is None:
                return False
            return await _ended(connection, tenant, generation_id, succeeded=False, outcome=failure)

    async def claim(self, owner: str, *, lease: timedelta, most: int) -> Sequence[Claim]:
        async with self._database.transaction() as connection:
            rows = await connection.fetch(_SQL["claim"], owner, lease, most)
        return [Claim(row["tenant_id"], row["id"], owner, row["fence"]) for row in rows]

    async def renew(self, owner: str, claims: Sequence[Claim], *, lease: timedelta) -> Sequence[Claim]:
        columns = ([one.tenant for one in claims], [one.id for one in claims], [one.fence for one in claims])
        async with self._database.transaction() as connection:
            rows = await connection.fetch(_SQL["renew"], owner, lease, *columns)
        held = {(row["tenant_id"], row["id"]) for row in rows}
        return [one for one in claims if (one.tenant, one.id) in held]

    async def begin(self, claim: Claim) -> Work | None:
        async with self._database.tenant(claim.tenant) as connection:
            if not await _held(connection, claim):
                return None
            row = await connection.fetchrow(_SQL["begin"], claim.tenant, claim.id)
        if row is None:
            return None
        grant = Grant.from_claim(row["claim"]) if row["claim"] else None
        principal = Principal(
            claim.tenant, row["subject"], frozenset(row["roles"]), CredentialKind(row["kind"]), grant=grant
        )
        return Work(principal, row["request"], row["runs"])

    async def end(self, claim: Claim, *, succeeded: bool, outcome: bytes) -> bool:
        async with self._database.tenant(claim.tenant) as connection:
            if not await _held(connection, claim):
                return False
            return await _ended(connection, claim.tenant, claim.id, succeeded=succeeded, outcome=outcome)

    async def again(self, claim: Claim, *, after: timedelta) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(_SQL["again"], claim.tenant, claim.id, claim.owner, claim.fence, after)


def _submitted(row: Any) -> Submitted:
    return Submitted(
        row["id"], row["created_at"], row["runs"], bool(row["running"]), row["succeeded"], row["outcome"] or b"",
        row["ended_at"],
    )  # fmt: skip


async def _held(connection: Connection, claim: Claim) -> bool:
    """Whether the claim holds; then it does to the end of the transaction."""
    return await connection.fetchval(_SQL["held"], claim.tenant, claim.id, claim.owner, claim.fence) is not None


async def _ended(connection: Connection, tenant: str, name: str, *, succeeded: bool, outcome: bytes) -> bool:
    ended = await connection.fetchval(_SQL["end"], tenant, name, succeeded, outcome)
    await connection.execute(_SQL["leave"], tenant, name)
    return ended is not None
