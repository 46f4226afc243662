"""The real store of the directory: the schema `gateway`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from services.gateway.directory import Role, Tenant, User
from shared.paging import Page
from shared.postgres import Database, load_queries

_SQL = load_queries(Path(__file__).with_name("directory.sql"))


class PostgresDirectoryStore:
    """One row a record."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put_tenant(self, platform: str, tenant: Tenant) -> Tenant:
        async with self._database.tenant(platform) as connection:
            row = await connection.fetchrow(
                _SQL["put_tenant"], platform, tenant.id, tenant.display_name, tenant.suspended,
                tenant.requests_per_second, tenant.burst, tenant.created_at,
            )  # fmt: skip
        return _tenant(row)

    async def tenant(self, platform: str, tenant_id: str) -> Tenant | None:
        async with self._database.tenant(platform) as connection:
            row = await connection.fetchrow(_SQL["tenant"], tenant_id)
        return _tenant(row) if row else None

    async def tenants(self, platform: str, *, suspended: bool | None, page: Page) -> Sequence[Tenant]:
        async with self._database.tenant(platform) as connection:
            rows = await connection.fetch(_SQL["tenants"], suspended, page.row, page.size + 1)
        return [_tenant(row) for row in rows]

    async def put_user(self, tenant: str, user: User) -> User:
        async with self._database.tenant(tenant) as connection:
            row = await connection.fetchrow(
                _SQL["put_user"], tenant, user.subject, user.display_name, user.service_account, list(user.roles),
                user.suspended, user.created_at,
            )  # fmt: skip
        return _user(row)

    async def user(self, tenant: str, subject: str) -> User | None:
        async with self._database.tenant(tenant) as connection:
            row = await connection.fetchrow(_SQL["user"], subject)
        return _user(row) if row else None

    async def users(self, tenant: str, *, service_accounts: bool | None, page: Page) -> Sequence[User]:
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(_SQL["users"], service_accounts, page.row, page.size + 1)
        return [_user(row) for row in rows]

    async def delete_user(self, tenant: str, subject: str) -> bool:
        async with self._database.tenant(tenant) as connection:
            return await connection.fetchval(_SQL["delete_user"], subject) is not None

    async def put_role(self, tenant: str, role: Role) -> None:
        async with self._database.tenant(tenant) as connection:
            await connection.execute(_SQL["put_role"], tenant, role.name, list(role.scopes), role.description)

    async def roles(self, tenant: str) -> Sequence[Role]:
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(_SQL["roles"])
        return [Role(row["name"], tuple(row["scopes"]), row["description"]) for row in rows]

    async def delete_role(self, tenant: str, name: str) -> bool:
        async with self._database.tenant(tenant) as connection:
            return await connection.fetchval(_SQL["delete_role"], name) is not None


def _tenant(row: Any) -> Tenant:
    return Tenant(
        id=row["id"],
        display_name=row["display_name"],
        suspended=row["suspended"],
        requests_per_second=row["requests_per_second"],
        burst=row["burst"],
        created_at=row["created_at"],
    )


def _user(row: Any) -> User:
    return User(
        subject=row["subject"],
        display_name=row["display_name"],
        service_account=row["service_account"],
        roles=tuple(row["roles"]),
        suspended=row["suspended"],
        created_at=row["created_at"],
    )
