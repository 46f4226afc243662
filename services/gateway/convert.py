"""Between the contracts (ours and Envoy's) and gateway's domain."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from envoy.config.core.v3 import base_pb2
from envoy.service.auth.v3 import external_auth_pb2
from envoy.type.v3 import http_status_pb2
from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2
from grpc import StatusCode

from agentnet.common.v1 import principal_pb2
from agentnet.gateway.v1 import health_service_pb2, key_pb2
from agentnet.gateway.v1 import key_service_pb2 as pb
from services.gateway.admission import Request
from services.gateway.errors import RateLimited
from services.gateway.facades.http import text
from services.gateway.facades.shapes import shape_of
from services.gateway.health import PartHealth
from services.gateway.limits import Level
from services.gateway.limits import headers as rate_headers
from services.gateway.store import ApiKey
from shared import fields
from shared.errors import STATUS_TRAILER, FieldRequired, InvalidArgument, MeshError
from shared.identity import HEADER, CredentialKind, Grant, Principal
from shared.paging import Page, next_page_token, page
from shared.rpc.log import LONGEST_REQUEST_ID, REQUEST_ID

_OVERWRITE: Final = base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
_JWT: Final = "envoy.filters.http.jwt_authn"
_BODY: Final = "agentnet.rest"
_HTTP: Final = {
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.UNAUTHENTICATED: 401,
    StatusCode.PERMISSION_DENIED: 403,
    StatusCode.UNIMPLEMENTED: 404,
    StatusCode.RESOURCE_EXHAUSTED: 429,
}
_MOST_SCOPES: Final = 64
_GRACE: Final = timedelta(hours=1)
_LONGEST_GRACE: Final = timedelta(days=30)
_TRANSCODED: Final = "x-envoy-original-path"
_KINDS: Final = {
    CredentialKind.TOKEN: principal_pb2.CREDENTIAL_KIND_TOKEN,
    CredentialKind.API_KEY: principal_pb2.CREDENTIAL_KIND_API_KEY,
    CredentialKind.SERVICE: principal_pb2.CREDENTIAL_KIND_SERVICE,
}


def check_request(request: Any) -> Request:
    """Envoy's question: jwt_authn left the claims, or why it does not trust them."""
    http = request.attributes.request.http
    headers = http.headers  # not copied: Envoy sends few, and few of them are read
    found: dict[str, Any] = {}
    if _JWT in request.attributes.metadata_context.filter_metadata:
        found = json_format.MessageToDict(request.attributes.metadata_context.filter_metadata[_JWT])
    failure = found.get("failure", {})
    return Request(
        path=http.path,
        headers=headers,
        claims=found.get("claims"),
        rest=_TRANSCODED in headers or "grpc" not in headers.get("content-type", ""),
        address=request.attributes.source.address.socket_address.address,
        request_id=headers.get(REQUEST_ID, "")[:LONGEST_REQUEST_ID],
        token_failure=str(failure.get("message", "")) if isinstance(failure, dict) else "",
    )


def said(request: Any) -> tuple[str, bytes]:
    """What a REST call said before it was transcoded: its query, and its body with long strings emptied."""
    attributes = request.attributes
    query = attributes.request.http.headers.get(_TRANSCODED, "").partition("?")[2]
    metadata = attributes.metadata_context.filter_metadata
    return query, base64.b64decode(metadata[_BODY]["body"]) if _BODY in metadata else b""


def admitted(header: str, level: Level) -> Any:
    """Envoy's answer: let in, under this identity; the credential itself goes no further."""
    answer = external_auth_pb2.CheckResponse()
    answer.status.code = 0
    let_in = answer.ok_response
    let_in.headers_to_remove.extend(("authorization", "x-api-key"))
    _add_header(let_in.headers, HEADER, header)
    for name, value in rate_headers(level).items():
        _add_header(let_in.response_headers_to_add, name, value)
    return answer


def denied(error: MeshError, path: str, *, rest: bool) -> Any:
    """Envoy's answer: keep out, and say why as everything else here does."""
    status = error.status()
    details = base64.b64encode(status.SerializeToString()).decode().rstrip("=")
    headers, body = [_header(STATUS_TRAILER, details), _header("grpc-status", str(status.code))], error.message
    if rest and (shape := shape_of(path)):
        headers, body = [_header("content-type", "application/json")], text(shape.body(error))
    elif rest:
        headers = [_header("content-type", "application/json")]
        body = json_format.MessageToJson(status, preserving_proto_field_name=True, indent=None)
    headers += [_header(name, value) for name, value in _limit_headers(error).items()]
    http_status = http_status_pb2.HttpStatus(code=_HTTP.get(error.code, 503))
    return external_auth_pb2.CheckResponse(
        status=status_pb2.Status(code=status.code, message=error.message),
        denied_response=external_auth_pb2.DeniedHttpResponse(status=http_status, headers=headers, body=body),
    )


def _limit_headers(error: MeshError) -> dict[str, str]:
    if not isinstance(error, RateLimited) or error.retry_after is None:
        return {}
    wait = str(math.ceil(error.retry_after.total_seconds()))
    return {"retry-after": wait, **rate_headers(error.level)}


def new_key(request: pb.CreateKeyRequest, now: datetime) -> dict[str, Any]:
    fields.at_most(len(request.roles), "roles", limit=4)
    if not request.roles:
        raise FieldRequired("roles")
    fields.at_most(len(request.scopes), "scopes", limit=_MOST_SCOPES)
    expires_at = request.expire_time.ToDatetime(UTC) if request.HasField("expire_time") else None
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
    given = request.grace.ToTimedelta() if request.HasField("grace") else _GRACE
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


def _header(name: str, value: str) -> Any:
    return base_pb2.HeaderValueOption(header=base_pb2.HeaderValue(key=name, value=value), append_action=_OVERWRITE)


def _add_header(headers: Any, name: str, value: str) -> None:
    """In place: a message made by its arguments costs five times as much, and this is done for each call."""
    added = headers.add()
    added.append_action = _OVERWRITE
    header = added.header
    header.key, header.value = name, value


def time(value: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(value)
    return stamp
