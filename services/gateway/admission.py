"""Admission: from what Envoy verified, or another credential, to a caller who may do this now; or why not."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

from services.gateway.audit import Audit
from services.gateway.credentials import Credentials
from services.gateway.directory import Directory, Standing
from services.gateway.errors import (
    ClaimMissing,
    KeyInvalid,
    MethodUnknown,
    RateLimited,
    RoleInsufficient,
    ScopeInsufficient,
    TenantSuspended,
    UserSuspended,
)
from services.gateway.keys import of_service_account
from services.gateway.limits import Level, Limits
from services.gateway.permissions import ADMIN, ROLES, Permission, Permissions
from shared.clock import Clock
from shared.errors import InvalidArgument, MeshError, Unauthenticated, Unavailable
from shared.identity import CredentialKind, Principal, current

_NOTED: Final = 4096
_TENANT_NAMES: Final = frozenset({"tenant", "tenant_id", "tenantId"})
_NOTE_EVERY: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Request:
    """One call at the edge: its gRPC path, its headers, and what Envoy found of its token."""

    path: str
    headers: Mapping[str, str]
    claims: Mapping[str, Any] | None = None
    token_failure: str = ""
    rest: bool = False
    address: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Admitted:
    """Who came in, and how much of the tightest limit is left."""

    principal: Principal
    level: Level


class Admission:
    """Decides who enters, and has every refusal audited."""

    def __init__(
        self,
        credentials: Credentials,
        permissions: Permissions,
        *,
        directory: Directory,
        limits: Limits,
        audit: Audit,
        clock: Clock,
    ) -> None:
        self._credentials = credentials
        self._permissions = permissions
        self._directory = directory
        self._limits = limits
        self._audit = audit
        self._clock = clock
        self._noted: OrderedDict[str, timedelta] = OrderedDict()

    async def admit(self, request: Request) -> Admitted | None:
        """Who comes in; None by a method that is open to all. Raises Unauthenticated, PermissionDenied, RateLimited,
        MethodUnknown, or Unavailable.
        """
        path, caller = request.path.partition("?")[0], None
        if (permission := self._permissions.get(path)) and permission.open:
            return None
        try:
            caller = await self._identify(request)
            return await self._decide(caller, path)
        except MeshError as error:
            self._note(caller, request, error)
            raise

    async def identify(self, request: Request) -> None:
        """Only whether the caller is one who may come in at all. Raises as `admit`."""
        caller = None
        try:
            caller = await self._identify(request)
            await self._settle(caller)
        except MeshError as error:
            self._note(caller, request, error)
            raise

    def note_name(self, admitted: Admitted | None, request: Request, error: InvalidArgument) -> None:
        """Audits a call that names a tenant where the contract has none: its credential's is the only one it gets."""
        if admitted and (error.field or "").rpartition(".")[2] in _TENANT_NAMES:
            self._note(admitted.principal, request, error)

    async def note_refused(self, path: str, details: str, *, address: str, request_id: str) -> None:
        """Audits a call that the edge refused before it asked. Those of one address are noted as often as it may fail
        to say who it is, and then once a second.
        """
        try:
            await self._limits.stranger(address)
        except RateLimited:
            if not self._first(address):
                return
        self._audit.refusal(None, path, reason=details, address=address, request=request_id)

    async def allow(self, path: str) -> None:
        """Lets the caller of the call being served call another method too, as if it came for it. Raises as `admit`."""
        await self._decide(current(), path)

    async def _identify(self, request: Request) -> Principal:
        try:
            path = request.path.partition("?")[0]
            return await self._credentials.identify(
                path, request.headers, claims=request.claims, token_failure=request.token_failure
            )
        except Unauthenticated:
            await self._limits.stranger(request.address)
            raise

    async def _decide(self, caller: Principal, path: str) -> Admitted:
        permission = self._permissions.get(path)
        if permission is None:
            raise MethodUnknown(f"there is nothing at {path}", method=path)
        principal, standing = await self._settle(caller)
        require(permission, principal, standing, path)
        rate = standing.tenant.rate if standing.tenant else None
        return Admitted(principal, await self._limits.admit(principal, path, tenant_rate=rate))

    async def _settle(self, caller: Principal) -> tuple[Principal, Standing]:
        standing = await self._directory.standing(caller.tenant_id, caller.subject)
        principal = settled(caller, standing)
        for delegator in caller.grant.delegators if caller.grant else ():
            await self._require_active(caller.tenant_id, delegator)
        return principal, standing

    async def _require_active(self, tenant: str, delegator: str) -> None:
        """Who was shut out acts through nobody else either. Raises UserSuspended."""
        standing = await self._directory.standing(tenant, delegator)
        if standing.user and standing.user.suspended:
            raise UserSuspended(f"{delegator}, who delegated this credential, is suspended")

    def _note(self, caller: Principal | None, request: Request, error: MeshError) -> None:
        """Audits a refusal; those for calling too often, which come in floods, once a second for each caller. That we
        cannot tell is none.
        """
        if isinstance(error, Unavailable):
            return
        if isinstance(error, RateLimited) and not self._first(caller.subject if caller else request.address):
            return
        path = request.path.partition("?")[0]
        self._audit.refusal(caller, path, reason=error.reason_name, address=request.address, request=request.request_id)

    def _first(self, who: str) -> bool:
        now = self._clock.monotonic()
        if (last := self._noted.get(who)) is not None and now - last < _NOTE_EVERY:
            return False
        self._noted[who] = now
        self._noted.move_to_end(who)
        if len(self._noted) > _NOTED:
            self._noted.popitem(last=False)
        return True


def settled(caller: Principal, standing: Standing) -> Principal:
    """The caller as the directory knows it: with the roles of its record, unless its credential was narrowed. Raises
    when it is shut out or has no role.
    """
    if standing.tenant and standing.tenant.suspended:
        raise TenantSuspended(f"the tenant {caller.tenant_id} is suspended")
    user = standing.user
    if user is None and of_service_account(caller):
        raise KeyInvalid("the API key is not valid")
    if user and user.suspended:
        raise UserSuspended(f"{caller.subject} is suspended")
    roles = caller.roles
    if user and user.service_account:
        roles &= frozenset(user.roles)
        if not roles:
            raise KeyInvalid("the API key is not valid")
    elif user and caller.kind is CredentialKind.TOKEN and caller.grant is None:
        roles |= frozenset(user.roles)
    known = roles & (ROLES | standing.roles.keys())
    if not known:
        raise ClaimMissing("the token needs the claim roles with a role of this mesh", claim="roles")
    return caller if known == caller.roles else replace(caller, roles=known)


def require(permission: Permission, principal: Principal, standing: Standing, path: str) -> None:
    """Raises RoleInsufficient and ScopeInsufficient. A tenant's own roles bring scopes; never what only admins may."""
    grant = principal.grant
    if grant and grant.scopes is not None and permission.scope not in grant.scopes:
        raise ScopeInsufficient(f"the credential lacks the scope {permission.scope}", scope=permission.scope)
    if permission.roles & principal.roles:
        return
    own = frozenset[str]().union(*(standing.roles.get(role, frozenset()) for role in principal.roles))
    if permission.scope in own and permission.roles - {ADMIN}:
        return
    roles = ",".join(sorted(principal.roles))
    raise RoleInsufficient(f"none of the caller's roles may call {path}", method=path, roles=roles)
