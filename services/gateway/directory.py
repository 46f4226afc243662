"""Who there is: tenants, users and service accounts, roles; and whether they get in."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol

from services.gateway.errors import RoleNotFound, TenantNotFound, UserNotFound
from services.gateway.limits import Rate
from services.gateway.permissions import ROLES
from shared.clock import Clock
from shared.errors import Unavailable
from shared.identity import Principal
from shared.paging import Page

_CACHE: Final = 16_384
_BURST_FACTOR: Final = 4


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant's record. A rate of 0 is the mesh's default."""

    id: str
    display_name: str
    suspended: bool
    requests_per_second: int
    burst: int
    created_at: datetime

    @property
    def rate(self) -> Rate | None:
        if not self.requests_per_second:
            return None
        return Rate(self.requests_per_second, self.burst or self.requests_per_second * _BURST_FACTOR)


@dataclass(frozen=True, slots=True)
class User:
    """A person's or a service account's record."""

    subject: str
    display_name: str
    service_account: bool
    roles: tuple[str, ...]
    suspended: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Role:
    """A tenant's own role."""

    name: str
    scopes: tuple[str, ...]
    description: str = ""


class DirectoryStore(Protocol):
    """Where records are kept. Tenants' records belong to the platform's own tenant, named `platform`."""

    async def put_tenant(self, platform: str, tenant: Tenant) -> Tenant:
        """Makes or replaces; the first `created_at` stays."""

    async def tenant(self, platform: str, tenant_id: str) -> Tenant | None: ...

    async def tenants(self, platform: str, *, suspended: bool | None, page: Page) -> Sequence[Tenant]:
        """By id, at most `page.size` + 1. The cursor is the id of the last one seen."""

    async def put_user(self, tenant: str, user: User) -> User:
        """Makes or replaces; the first `created_at` stays."""

    async def user(self, tenant: str, subject: str) -> User | None: ...

    async def users(self, tenant: str, *, service_accounts: bool | None, page: Page) -> Sequence[User]:
        """By subject, at most `page.size` + 1. The cursor is the subject of the last one seen."""

    async def delete_user(self, tenant: str, subject: str) -> bool:
        """False when there was none."""

    async def put_role(self, tenant: str, role: Role) -> None: ...

    async def roles(self, tenant: str) -> Sequence[Role]:
        """By name."""

    async def delete_role(self, tenant: str, name: str) -> bool:
        """False when there was none."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What the directory says of a caller at the door."""

    tenant: Tenant | None = None
    user: User | None = None
    roles: Mapping[str, frozenset[str]] = field(default_factory=dict)


class Directory:
    """The records of all tenants, one tenant a call."""

    def __init__(self, store: DirectoryStore, *, platform: str, clock: Clock, cache_ttl: timedelta) -> None:
        self._store = store
        self._platform = platform
        self._clock = clock
        self._ttl = cache_ttl
        self._known: OrderedDict[tuple[str, str], tuple[datetime, Standing]] = OrderedDict()

    async def standing(self, tenant: str, subject: str) -> Standing:
        """Remembered for a few seconds, and for longer while the database is away.

        Raises Unavailable when the database is away and the caller was not seen before.
        """
        now, found = self._clock.now(), self._known.get((tenant, subject))
        if found and found[0] > now:
            return found[1]
        try:
            standing = await self._read(tenant, subject)
        except Unavailable:
            if found is None:
                raise
            standing = found[1]
        self._known[tenant, subject] = (now + self._ttl, standing)
        self._known.move_to_end((tenant, subject))
        if len(self._known) > _CACHE:
            self._known.popitem(last=False)
        return standing

    async def _read(self, tenant: str, subject: str) -> Standing:
        return Standing(
            tenant=await self._store.tenant(self._platform, tenant),
            user=await self._store.user(tenant, subject),
            roles={role.name: frozenset(role.scopes) for role in await self._store.roles(tenant)},
        )

    async def put_tenant(self, caller: Principal, tenant: Tenant) -> Tenant:
        """Raises TenantNotFound for callers outside the platform's tenant."""
        self._require_platform(caller)
        return await self._store.put_tenant(self._platform, tenant)

    async def tenant(self, caller: Principal, tenant_id: str) -> Tenant:
        """Raises TenantNotFound."""
        if tenant_id != caller.tenant_id:
            self._require_platform(caller)
        if found := await self._store.tenant(self._platform, tenant_id):
            return found
        raise TenantNotFound(f"no record of the tenant {tenant_id}")

    async def tenants(self, caller: Principal, *, suspended: bool | None, page: Page) -> Sequence[Tenant]:
        """Raises TenantNotFound for callers outside the platform's tenant."""
        self._require_platform(caller)
        return await self._store.tenants(self._platform, suspended=suspended, page=page)

    async def put_user(self, tenant: str, user: User) -> User:
        """Raises RoleNotFound."""
        await self.require_roles(tenant, user.roles)
        return await self._store.put_user(tenant, user)

    async def user(self, tenant: str, subject: str) -> User:
        """Raises UserNotFound."""
        if found := await self._store.user(tenant, subject):
            return found
        raise UserNotFound(f"no record of {subject}", subject=subject)

    async def users(self, tenant: str, *, service_accounts: bool | None, page: Page) -> Sequence[User]:
        return await self._store.users(tenant, service_accounts=service_accounts, page=page)

    async def delete_user(self, tenant: str, subject: str) -> None:
        """Raises UserNotFound."""
        if not await self._store.delete_user(tenant, subject):
            raise UserNotFound(f"no record of {subject}", subject=subject)

    async def put_role(self, tenant: str, role: Role) -> None:
        await self._store.put_role(tenant, role)

    async def roles(self, tenant: str) -> Sequence[Role]:
        return await self._store.roles(tenant)

    async def delete_role(self, tenant: str, name: str) -> None:
        """Raises RoleNotFound."""
        if not await self._store.delete_role(tenant, name):
            raise RoleNotFound(f"no role {name}", role=name)

    async def require_roles(self, tenant: str, names: Sequence[str]) -> None:
        """Raises RoleNotFound when one is neither the mesh's nor the tenant's."""
        if unknown := set(names) - ROLES:
            unknown -= {role.name for role in await self._store.roles(tenant)}
        if unknown:
            name = min(unknown)
            raise RoleNotFound(f"no role {name}; there are {', '.join(sorted(ROLES))} and the tenant's own", role=name)

    def _require_platform(self, caller: Principal) -> None:
        if caller.tenant_id != self._platform:
            raise TenantNotFound("only admins of the platform's own tenant see other tenants")
