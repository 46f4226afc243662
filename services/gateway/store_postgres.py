"""The real store: the schema `gateway`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from services.gateway.store import ApiKey
from shared.paging import Page
from shared.postgres import Database, load_queries

_SQL = load_queries(Path(__file__).with_name("queries.sql"))


class PostgresKeyStore:
    """One row a key."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, tenant: str, key: ApiKey, *, request_id: str | None) -> bool:
        async with self._database.tenant(tenant) as connection:
            added = await connection.fetchval(
                _SQL["add"], tenant, key.id, key.display_name, list(key.roles), key.secret_hash, key.creator,
                key.created_at, key.expires_at, request_id, list(key.scopes), key.service_account,
            )  # fmt: skip
        return added is not None

    async def find(self, tenant: str, key_id: str) -> ApiKey | None:
        async with self._database.tenant(tenant) as connection:
            row = await connection.fetchrow(_SQL["find"], key_id)
        return _key(row) if row else None

    async def revoke(self, tenant: str, key_id: str, *, at: datetime) -> ApiKey | None:
        async with self._database.tenant(tenant) as connection:
            row = await connection.fetchrow(_SQL["revoke"], key_id, at)
        return _key(row) if row else None

    async def end(self, tenant: str, key_id: str, *, at: datetime) -> ApiKey | None:
        async with self._database.tenant(tenant) as connection:
            row = await connection.fetchrow(_SQL["end"], key_id, at)
        return _key(row) if row else None

    async def used(self, tenant: str, key_id: str, *, at: datetime) -> None:
        async with self._database.tenant(tenant) as connection:
            await connection.execute(_SQL["used"], key_id, at)

    async def keys(self, tenant: str, *, active_at: datetime | None, page: Page) -> Sequence[ApiKey]:
        seen = page.place
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(_SQL["keys"], active_at, *seen, page.size + 1)
        return [_key(row) for row in rows]


def _key(row: Any) -> ApiKey:
    return ApiKey(
        id=row["id"],
        display_name=row["display_name"],
        roles=tuple(row["roles"]),
        secret_hash=row["secret_hash"],
        creator=row["creator"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        scopes=tuple(row["scopes"]),
        last_used_at=row["last_used_at"],
        service_account=row["service_account"],
    )
