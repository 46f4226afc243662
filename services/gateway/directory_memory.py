"""The honest fake of the directory's store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from services.gateway.directory import Role, Tenant, User
from shared.paging import Page


class MemoryDirectoryStore:
    """Everything is gone when the process ends."""

    def __init__(self) -> None:
        self._tenants: dict[tuple[str, str], Tenant] = {}
        self._users: dict[tuple[str, str], User] = {}
        self._roles: dict[tuple[str, str], Role] = {}

    async def put_tenant(self, platform: str, tenant: Tenant) -> Tenant:
        known = self._tenants.get((platform, tenant.id), tenant)
        kept = self._tenants[platform, tenant.id] = replace(tenant, created_at=known.created_at)
        return kept

    async def tenant(self, platform: str, tenant_id: str) -> Tenant | None:
        return self._tenants.get((platform, tenant_id))

    async def tenants(self, platform: str, *, suspended: bool | None, page: Page) -> Sequence[Tenant]:
        found = [tenant for (owner, _), tenant in sorted(self._tenants.items()) if owner == platform]
        fitting = [tenant for tenant in found if suspended is None or tenant.suspended == suspended]
        return [tenant for tenant in fitting if tenant.id > page.row][: page.size + 1]

    async def put_user(self, tenant: str, user: User) -> User:
        known = self._users.get((tenant, user.subject), user)
        kept = self._users[tenant, user.subject] = replace(user, created_at=known.created_at)
        return kept

    async def user(self, tenant: str, subject: str) -> User | None:
        return self._users.get((tenant, subject))

    async def users(self, tenant: str, *, service_accounts: bool | None, page: Page) -> Sequence[User]:
        found = [user for (owner, _), user in sorted(self._users.items()) if owner == tenant]
        fitting = [user for user in found if service_accounts is None or user.service_account == service_accounts]
        return [user for user in fitting if user.subject > page.row][: page.size + 1]

    async def delete_user(self, tenant: str, subject: str) -> bool:
        return self._users.pop((tenant, subject), None) is not None

    async def put_role(self, tenant: str, role: Role) -> None:
        self._roles[tenant, role.name] = role

    async def roles(self, tenant: str) -> Sequence[Role]:
        return [role for (owner, _), role in sorted(self._roles.items()) if owner == tenant]

    async def delete_role(self, tenant: str, name: str) -> bool:
        return self._roles.pop((tenant, name), None) is not None
