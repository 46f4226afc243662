"""Between the contracts of tenants, users, roles, tokens and audit, and their domain."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from google.protobuf.duration_pb2 import Duration

from agentnet.common.v1 import principal_pb2
from agentnet.gateway.v1 import (
    audit_service_pb2,
    directory_pb2,
    tenant_service_pb2,
    token_service_pb2,
    user_service_pb2,
)
from services.gateway import convert
from services.gateway.audit import AuditEntry, AuditFilter
from services.gateway.claims import ROLE, TENANT
from services.gateway.directory import Role, Tenant, User
from services.gateway.keys import ID_PREFIX
from services.gateway.permissions import ROLES
from shared import fields
from shared.errors import FieldRequired, InvalidArgument
from shared.identity import Grant
from shared.paging import Page, next_page_token, page

SUBJECT: Final = re.compile(r"[A-Za-z0-9:@._+-]{1,255}")
_DELEGATE: Final = re.compile(r"(agent|program):[A-Za-z0-9:@._+-]{1,240}")
_TTL: Final = timedelta(minutes=15)
_LONGEST_TTL: Final = timedelta(hours=1)
_MOST: Final = 64
_MOST_PER_SECOND: Final = 1_000_000
_STANDINGS: Final = {False: directory_pb2.STANDING_ACTIVE, True: directory_pb2.STANDING_SUSPENDED}
_SERVICE_ACCOUNT: Final = directory_pb2.USER_KIND_SERVICE_ACCOUNT
_KINDS: Final = {False: directory_pb2.USER_KIND_PERSON, True: _SERVICE_ACCOUNT}


def tenant(message: directory_pb2.Tenant, now: datetime) -> Tenant:
    for field in ("requests_per_second", "burst"):
        fields.within(getattr(message, field), f"tenant.{field}", low=0, high=_MOST_PER_SECOND)
    return Tenant(
        id=tenant_id(message.id, "tenant.id"),
        display_name=fields.text(message.display_name, "tenant.display_name", limit=100),
        suspended=message.standing == directory_pb2.STANDING_SUSPENDED,
        requests_per_second=message.requests_per_second,
        burst=message.burst,
        created_at=now,
    )


def tenant_id(value: str, field: str) -> str:
    return fields.matching(value, field, TENANT, form="lower-case letters, digits and dashes, at most 63 characters")


def tenant_message(found: Tenant) -> directory_pb2.Tenant:
    return directory_pb2.Tenant(
        id=found.id,
        display_name=found.display_name,
        standing=_STANDINGS[found.suspended],
        requests_per_second=found.requests_per_second,
        burst=found.burst,
        create_time=convert.time(found.created_at),
    )


def tenant_page(request: tenant_service_pb2.ListTenantsRequest) -> tuple[bool | None, Page, str]:
    scope = f"tenants|{request.standing}"
    wanted = request.standing == directory_pb2.STANDING_SUSPENDED if request.standing else None
    return wanted, page(request.page_size, request.page_token, scope=scope), scope


def tenants_response(found: Sequence[Tenant], asked: Page, scope: str) -> tenant_service_pb2.ListTenantsResponse:
    shown = found[: asked.size]
    more = (shown[-1].id,) if len(found) > len(shown) else None
    return tenant_service_pb2.ListTenantsResponse(
        tenants=[tenant_message(one) for one in shown], next_page_token=next_page_token(more, scope=scope)
    )


def user(message: directory_pb2.User, now: datetime) -> User:
    service_account = message.kind == _SERVICE_ACCOUNT
    name = subject(message.subject, "user.subject")
    if service_account and name.startswith(f"{ID_PREFIX}_"):
        raise InvalidArgument("a service account's name must not look like a key's id", field="user.subject")
    fields.at_most(len(message.roles), "user.roles", limit=_MOST)
    if service_account and not message.roles:
        raise FieldRequired("user.roles")
    return User(
        subject=name,
        display_name=fields.text(message.display_name, "user.display_name", limit=100),
        service_account=service_account,
        roles=tuple(sorted(set(message.roles))),
        suspended=message.standing == directory_pb2.STANDING_SUSPENDED,
        created_at=now,
    )


def subject(value: str, field: str) -> str:
    return fields.matching(value, field, SUBJECT, form="letters, digits and :@._+-, at most 255 characters")


def delegate(value: str) -> str:
    """Who acts for another: never a name that a person or a service account could have."""
    return fields.matching(value, "subject", _DELEGATE, form='"agent:" or "program:" and letters, digits and :@._+-')


def user_message(found: User) -> directory_pb2.User:
    return directory_pb2.User(
        subject=found.subject,
        display_name=found.display_name,
        kind=_KINDS[found.service_account],
        roles=found.roles,
        standing=_STANDINGS[found.suspended],
        create_time=convert.time(found.created_at),
    )


def user_page(request: user_service_pb2.ListUsersRequest) -> tuple[bool | None, Page, str]:
    scope = f"users|{request.kind}"
    wanted = request.kind == _SERVICE_ACCOUNT if request.kind else None
    return wanted, page(request.page_size, request.page_token, scope=scope), scope


def users_response(found: Sequence[User], asked: Page, scope: str) -> user_service_pb2.ListUsersResponse:
    shown = found[: asked.size]
    more = (shown[-1].subject,) if len(found) > len(shown) else None
    return user_service_pb2.ListUsersResponse(
        users=[user_message(one) for one in shown], next_page_token=next_page_token(more, scope=scope)
    )


def role(message: directory_pb2.Role, scopes: frozenset[str]) -> Role:
    """`scopes` are all there are."""
    name = fields.matching(message.name, "role.name", ROLE, form="lower-case letters, digits and _, at most 63")
    if name in ROLES:
        raise InvalidArgument(f"{name} is a role of the mesh's own", field="role.name")
    fields.at_most(len(message.scopes), "role.scopes", limit=_MOST)
    if not message.scopes:
        raise FieldRequired("role.scopes")
    if unknown := set(message.scopes) - scopes:
        raise InvalidArgument(f"no method has the scope {min(unknown)}", field="role.scopes")
    description = fields.text(message.description, "role.description", limit=1000)
    return Role(name, tuple(sorted(set(message.scopes))), description)


def role_message(found: Role) -> directory_pb2.Role:
    return directory_pb2.Role(name=found.name, scopes=found.scopes, description=found.description)


def ttl(given: Duration, *, present: bool) -> timedelta:
    asked = fields.span(given, "ttl") if present else _TTL
    if not timedelta() < asked <= _LONGEST_TTL:
        raise InvalidArgument("ttl must be above 0 and at most 1 hour", field="ttl")
    return asked


def narrowing(request: token_service_pb2.ExchangeTokenRequest) -> tuple[frozenset[str], frozenset[str]]:
    """Roles and scopes asked for."""
    fields.at_most(len(request.roles), "roles", limit=_MOST)
    fields.at_most(len(request.scopes), "scopes", limit=_MOST)
    return frozenset(request.roles), frozenset(request.scopes)


def grant(message: principal_pb2.Grant) -> Grant:
    """What is empty is not asked for. The delegators are the mesh's to name."""
    for name, given in (("scopes", message.scopes), ("tools", message.tools)):
        fields.at_most(len(given), f"grant.{name}", limit=_MOST)
    if message.budget_micros_usd < 0 or message.depth < 0:
        raise InvalidArgument("budget_micros_usd and depth must not be negative", field="grant")
    return Grant(
        scopes=frozenset(message.scopes) or None,
        tools=frozenset(message.tools) or None,
        budget_micros_usd=message.budget_micros_usd or None,
        depth=message.depth if message.HasField("depth") else None,
    )


def audit_page(request: audit_service_pb2.ListAuditEntriesRequest) -> tuple[AuditFilter, Page, str]:
    wanted = AuditFilter(
        action=request.action,
        subject=request.subject,
        start=fields.instant(request.start_time, "start_time") if request.HasField("start_time") else None,
        end=fields.instant(request.end_time, "end_time") if request.HasField("end_time") else None,
    )
    scope = f"audit|{wanted}"
    return wanted, page(request.page_size, request.page_token, scope=scope), scope


def audit_response(found: Sequence[AuditEntry], asked: Page, scope: str) -> audit_service_pb2.ListAuditEntriesResponse:
    shown = found[: asked.size]
    more = (shown[-1].created_at.isoformat(), shown[-1].id) if len(found) > len(shown) else None
    return audit_service_pb2.ListAuditEntriesResponse(
        entries=[_entry(one) for one in shown], next_page_token=next_page_token(more, scope=scope)
    )


def _entry(found: AuditEntry) -> audit_service_pb2.AuditEntry:
    return audit_service_pb2.AuditEntry(
        id=found.id,
        time=convert.time(found.created_at),
        subject=found.subject,
        action=found.action,
        target=found.target,
        reason=found.reason,
        address=found.address,
        request_id=found.request_id,
    )
