"""Between Envoy's question about a call, an HTTP request (`ext_authz` with `http_service`), and gateway's domain."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from google.protobuf import json_format
from grpc import StatusCode

from services.gateway.admission import Request
from services.gateway.dashboard.cookies import DASHBOARD
from services.gateway.errors import RateLimited
from services.gateway.facades.http import text
from services.gateway.facades.shapes import shape_of
from services.gateway.limits import Level
from services.gateway.limits import headers as rate_headers
from shared.errors import STATUS_TRAILER, MeshError, Unauthenticated
from shared.identity import HEADER
from shared.rpc.log import LONGEST_REQUEST_ID, REQUEST_ID

# Envoy's own words beside the headers of the call, as deploy/envoy/admission.py has it send them.
ADDRESS: Final = "x-agentnet-address"
CLAIMS: Final = "x-agentnet-claims"
TYPE: Final = "x-agentnet-content-type"
FAILURE: Final = "x-agentnet-token-failure"
BODY: Final = "x-agentnet-body"
SHOWN: Final = "x-agentnet-door"
# Whether the call may be made; and, for a long body that is not read yet, only who makes it.
ADMIT: Final = "/admit"
IDENTIFY: Final = "/identify"
# What Envoy refused without asking.
REFUSED: Final = "/refused"
_TRANSCODED: Final = "x-envoy-original-path"
_HTTP: Final = {
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.UNAUTHENTICATED: 401,
    StatusCode.PERMISSION_DENIED: 403,
    StatusCode.UNIMPLEMENTED: 404,
    StatusCode.RESOURCE_EXHAUSTED: 429,
}
_SIGN_IN: Final = "/dashboard/sign-in"
# What Envoy tells the caller as 503, in our words: of a 5xx it would drop them.
_CANNOT_TELL: Final = 421
_JSON: Final = {"content-type": "application/json"}


class Unasked(Exception):
    """Not a question that Envoy asks."""


@dataclass(frozen=True, slots=True)
class Question:
    """One request of Envoy's. `headers` has each name once, in lower case; of a name sent twice both, by comma."""

    target: str
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def identify_only(self) -> bool:
        return self.target.startswith(f"{IDENTIFY}/")

    def call(self) -> Request:
        """The call it is about. Raises Unasked."""
        prefix = IDENTIFY if self.identify_only else ADMIT
        if not self.target.startswith(f"{prefix}/"):
            raise Unasked(self.target[:100])
        return Request(
            path=self.target[len(prefix) :],
            headers=self.headers,
            claims=_claims(self.headers),
            rest=_TRANSCODED in self.headers or "grpc" not in self.headers.get(TYPE, ""),
            address=self.headers.get(ADDRESS, ""),
            request_id=self.headers.get(REQUEST_ID, "")[:LONGEST_REQUEST_ID],
            token_failure=self.headers.get(FAILURE, ""),
        )

    def said(self) -> tuple[str, bytes]:
        """What a REST call said before it was transcoded: its query, and its body with long strings emptied."""
        query = self.headers.get(_TRANSCODED, "").partition("?")[2]
        return query, base64.b64decode(self.headers.get(BODY, ""))


def _claims(headers: Mapping[str, str]) -> Mapping[str, Any] | None:
    """Of a token that Envoy verified: its payload as it came. Raises Unasked when it is none."""
    if not (payload := headers.get(CLAIMS)):
        return None
    try:
        found = json.loads(base64.urlsafe_b64decode(payload + "=="))
    except (binascii.Error, ValueError) as error:
        raise Unasked("claims that are none") from error
    if not isinstance(found, dict):
        raise Unasked("claims that are no object")
    return found


def admitted(header: str, level: Level) -> bytes:
    """Envoy's answer: let in, under this identity; routes take the credential itself off."""
    return _answer(200, {HEADER: header, **rate_headers(level)}, b"")


def let_by() -> bytes:
    """Envoy's answer: nothing against it, and nobody's name on it."""
    return _answer(200, {}, b"")


def denied(error: MeshError, path: str, *, rest: bool) -> bytes:
    """Envoy's answer: keep out, and say why as everything else here does."""
    status = error.status()
    if rest and path == DASHBOARD and isinstance(error, Unauthenticated):
        return _answer(303, {"location": _SIGN_IN}, b"")
    if not rest:
        details = base64.b64encode(status.SerializeToString()).decode().rstrip("=")
        headers, body = {STATUS_TRAILER: details, "grpc-status": str(status.code)}, error.message
    elif shape := shape_of(path):
        headers, body = _JSON, text(shape.body(error))
    else:
        headers, body = _JSON, json_format.MessageToJson(status, preserving_proto_field_name=True, indent=None)
    return _answer(_HTTP.get(error.code, _CANNOT_TELL), {**headers, **_limit_headers(error)}, body.encode())


def _limit_headers(error: MeshError) -> Mapping[str, str]:
    if not isinstance(error, RateLimited) or error.retry_after is None:
        return {}
    wait = str(math.ceil(error.retry_after.total_seconds()))
    return {"retry-after": wait, **rate_headers(error.level)}


def _answer(status: int, headers: Mapping[str, str], body: bytes) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-length: {len(body)}\r\n{lines}\r\n"
    return head.encode() + body
