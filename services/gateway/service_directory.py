"""Gateway's services for tenants, users, roles, tokens and the audit. What changes who gets in is audited."""

from __future__ import annotations

from typing import Any

from agentnet.gateway.v1 import (
    audit_service_pb2,
    audit_service_pb2_grpc,
    tenant_service_pb2,
    tenant_service_pb2_grpc,
    token_service_pb2,
    token_service_pb2_grpc,
    user_service_pb2,
    user_service_pb2_grpc,
)
from services.gateway import convert, tokens
from services.gateway import convert_directory as to
from services.gateway.audit import Audit
from services.gateway.directory import Directory
from services.gateway.tokens import Tokens
from shared import fields
from shared.clock import Clock
from shared.identity import Grant, current
from shared.paging import paged


class TenantService(tenant_service_pb2_grpc.TenantServiceServicer):
    """Tenants."""

    def __init__(self, directory: Directory, audit: Audit, clock: Clock) -> None:
        self._directory = directory
        self._audit = audit
        self._clock = clock

    async def PutTenant(
        self, request: tenant_service_pb2.PutTenantRequest, context: Any
    ) -> tenant_service_pb2.PutTenantResponse:
        found = await self._directory.put_tenant(current(), to.tenant(request.tenant, self._clock.now()))
        await self._audit.act(current(), "tenant.put", found.id)
        return tenant_service_pb2.PutTenantResponse(tenant=to.tenant_message(found))

    async def GetTenant(
        self, request: tenant_service_pb2.GetTenantRequest, context: Any
    ) -> tenant_service_pb2.GetTenantResponse:
        found = await self._directory.tenant(current(), to.tenant_id(request.tenant_id, "tenant_id"))
        return tenant_service_pb2.GetTenantResponse(tenant=to.tenant_message(found))

    async def ListTenants(
        self, request: tenant_service_pb2.ListTenantsRequest, context: Any
    ) -> tenant_service_pb2.ListTenantsResponse:
        suspended, page, scope = to.tenant_page(request)
        found = await self._directory.tenants(current(), suspended=suspended, page=page)
        return to.tenants_response(found, page, scope)


class UserService(user_service_pb2_grpc.UserServiceServicer):
    """Users, service accounts and roles."""

    def __init__(self, directory: Directory, audit: Audit, clock: Clock, *, scopes: frozenset[str]) -> None:
        self._directory = directory
        self._audit = audit
        self._clock = clock
        self._scopes = scopes

    async def PutUser(self, request: user_service_pb2.PutUserRequest, context: Any) -> user_service_pb2.PutUserResponse:
        found = await self._directory.put_user(current().tenant_id, to.user(request.user, self._clock.now()))
        await self._audit.act(current(), "user.put", found.subject)
        return user_service_pb2.PutUserResponse(user=to.user_message(found))

    async def GetUser(self, request: user_service_pb2.GetUserRequest, context: Any) -> user_service_pb2.GetUserResponse:
        found = await self._directory.user(current().tenant_id, to.subject(request.subject, "subject"))
        return user_service_pb2.GetUserResponse(user=to.user_message(found))

    async def ListUsers(
        self, request: user_service_pb2.ListUsersRequest, context: Any
    ) -> user_service_pb2.ListUsersResponse:
        accounts, page, scope = to.user_page(request)
        found = await self._directory.users(current().tenant_id, service_accounts=accounts, page=page)
        return to.users_response(found, page, scope)

    async def DeleteUser(
        self, request: user_service_pb2.DeleteUserRequest, context: Any
    ) -> user_service_pb2.DeleteUserResponse:
        subject = to.subject(request.subject, "subject")
        await self._directory.delete_user(current().tenant_id, subject)
        await self._audit.act(current(), "user.deleted", subject)
        return user_service_pb2.DeleteUserResponse()

    async def PutRole(self, request: user_service_pb2.PutRoleRequest, context: Any) -> user_service_pb2.PutRoleResponse:
        role = to.role(request.role, self._scopes)
        await self._directory.put_role(current().tenant_id, role)
        await self._audit.act(current(), "role.put", role.name)
        return user_service_pb2.PutRoleResponse(role=to.role_message(role))

    async def ListRoles(
        self, request: user_service_pb2.ListRolesRequest, context: Any
    ) -> user_service_pb2.ListRolesResponse:
        roles = await self._directory.roles(current().tenant_id)
        shown, token = paged(roles, request, scope="roles", name=lambda role: role.name)
        return user_service_pb2.ListRolesResponse(roles=[to.role_message(one) for one in shown], next_page_token=token)

    async def DeleteRole(
        self, request: user_service_pb2.DeleteRoleRequest, context: Any
    ) -> user_service_pb2.DeleteRoleResponse:
        name = fields.required(request.name, "name", limit=63)
        await self._directory.delete_role(current().tenant_id, name)
        await self._audit.act(current(), "role.deleted", name)
        return user_service_pb2.DeleteRoleResponse()


class TokenService(token_service_pb2_grpc.TokenServiceServicer):
    """Short-lived tokens."""

    def __init__(self, made: Tokens, audit: Audit) -> None:
        self._tokens = made
        self._audit = audit

    async def ExchangeToken(
        self, request: token_service_pb2.ExchangeTokenRequest, context: Any
    ) -> token_service_pb2.ExchangeTokenResponse:
        roles, scopes = to.narrowing(request)
        ttl = to.ttl(request.ttl, present=request.HasField("ttl"))
        token, end = self._tokens.make(tokens.narrowed(current(), roles=roles, scopes=scopes), ttl)
        await self._audit.act(current(), "token.exchanged", current().subject)
        return token_service_pb2.ExchangeTokenResponse(token=token, expire_time=convert.time(end))

    async def DelegateToken(
        self, request: token_service_pb2.DelegateTokenRequest, context: Any
    ) -> token_service_pb2.DelegateTokenResponse:
        subject = to.delegate(request.subject)
        ttl = to.ttl(request.ttl, present=request.HasField("ttl"))
        grant, roles = to.grant(request.grant), frozenset(request.roles)
        principal = tokens.delegated(current(), subject, roles=roles, grant=grant, ids=self._tokens.ids)
        token, end = self._tokens.make(principal, ttl)
        await self._audit.act(current(), "token.delegated", subject)
        return token_service_pb2.DelegateTokenResponse(
            token=token, expire_time=convert.time(end), grant=convert.grant(principal.grant or Grant())
        )


class AuditService(audit_service_pb2_grpc.AuditServiceServicer):
    """The audit, to read."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit

    async def ListAuditEntries(
        self, request: audit_service_pb2.ListAuditEntriesRequest, context: Any
    ) -> audit_service_pb2.ListAuditEntriesResponse:
        wanted, page, scope = to.audit_page(request)
        return to.audit_response(await self._audit.entries(current().tenant_id, wanted, page), page, scope)
