"""Between the contract and gateway's domain."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from agentnet.common.v1 import principal_pb2
from agentnet.gateway.v1 import health_service_pb2, key_pb2
from agentnet.gateway.v1 import key_service_pb2 as pb
from services.gateway.health import PartHealth
from services.gateway.store import ApiKey
from shared import fields
from shared.errors import FieldRequired, InvalidArgument
from shared.identity import CredentialKind, Grant, Principal
from shared.paging import Page, next_page_token, page

_MOST_SCOPES: Final = 64
_GRACE: Final = timedelta(hours=1)
_LONGEST_GRACE: Final = timedelta(days=30)
_KINDS: Final = {
    CredentialKind.TOKEN: principal_pb2.CREDENTIAL_KIND_TOKEN,
    CredentialKind.API_KEY: principal_pb2.CREDENTIAL_KIND_API_KEY,
    CredentialKind.SERVICE: principal_pb2.CREDENTIAL_KIND_SERVICE,
}


def new_key(request: pb.CreateKeyRequest, now: datetime) -> dict[str, Any]:
    fields.at_most(len(request.roles), "roles", limit=4)
    if not request.roles:
        raise FieldRequired("roles")
    fields.at_most(len(request.scopes), "scopes", limit=_MOST_SCOPES)
    expires_at = fields.instant(request.expire_time, "expire_time") if request.HasField("expire_time") else None
    if expires_at and expires_at <= now:
        raise InvalidArgument("expire_time must be in the future", field="expire_time")
    return {
        "display_name": fields.required(request.display_name, "display_name", limit=100),
        "roles": frozenset(request.roles),
        "expires_at": expires_at,
        "request_id": fields.request_id(request.request_id),
        "scopes": frozenset(request.scopes),
        "service_account": fields.text(request.service_account, "service_account", limit=255),
    }


def grace(request: pb.RotateKeyRequest) -> timedelta:
    given = fields.span(request.grace, "grace") if request.HasField("grace") else _GRACE
    if not timedelta() <= given <= _LONGEST_GRACE:
        raise InvalidArgument("grace must be from 0 to 30 days", field="grace")
    return given


def key_page(request: pb.ListKeysRequest) -> tuple[Page, str]:
    scope = f"keys|{request.active_only}"
    return page(request.page_size, request.page_token, scope=scope), scope


def keys_response(found: Sequence[ApiKey], asked: Page, scope: str) -> pb.ListKeysResponse:
    shown = found[: asked.size]
    more = (shown[-1].created_at.isoformat(), shown[-1].id) if len(found) > len(shown) else None
    return pb.ListKeysResponse(keys=[key(one) for one in shown], next_page_token=next_page_token(more, scope=scope))


def key(found: ApiKey) -> key_pb2.Key:
    message = key_pb2.Key(
        id=found.id,
        display_name=found.display_name,
        roles=found.roles,
        create_time=time(found.created_at),
        creator=found.creator,
        scopes=found.scopes,
        service_account=found.service_account,
    )
    if found.last_used_at:
        message.last_use_time.CopyFrom(time(found.last_used_at))
    if found.expires_at:
        message.expire_time.CopyFrom(time(found.expires_at))
    if found.revoked_at:
        message.revoke_time.CopyFrom(time(found.revoked_at))
    return message


def principal(found: Principal) -> principal_pb2.Principal:
    message = principal_pb2.Principal(
        tenant_id=found.tenant_id,
        subject=found.subject,
        roles=sorted(found.roles),
        credential_kind=_KINDS[found.kind],
    )
    if found.grant:
        message.grant.CopyFrom(grant(found.grant))
    if found.expires_at:
        message.expire_time.CopyFrom(time(found.expires_at))
    return message


def grant(found: Grant) -> principal_pb2.Grant:
    message = principal_pb2.Grant(
        scopes=sorted(found.scopes or ()),
        tools=sorted(found.tools or ()),
        budget_micros_usd=found.budget_micros_usd or 0,
        delegators=found.delegators,
        purses=[principal_pb2.Purse(id=purse.id, limit_micros_usd=purse.micros_usd) for purse in found.purses],
    )
    if found.depth is not None:
        message.depth = found.depth
    return message


def health_response(parts: Sequence[PartHealth], version: str) -> health_service_pb2.GetHealthResponse:
    states = {True: health_service_pb2.HEALTH_STATE_SERVING, False: health_service_pb2.HEALTH_STATE_NOT_SERVING}
    return health_service_pb2.GetHealthResponse(
        state=health_service_pb2.HEALTH_STATE_SERVING,
        parts=[health_service_pb2.PartHealth(name=part.name, state=states[part.serving]) for part in parts],
        version=version,
    )


def time(value: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(value)
    return stamp
