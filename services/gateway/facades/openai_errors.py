"""OpenAI's errors: {"error": {message, type, param, code}}."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from grpc import StatusCode

from services.gateway.facades import http
from services.gateway.facades.answering import Shape
from shared.errors import MeshError

_TYPES: Final[Mapping[StatusCode, str]] = {
    StatusCode.UNAUTHENTICATED: "authentication_error",
    StatusCode.PERMISSION_DENIED: "permission_error",
    StatusCode.RESOURCE_EXHAUSTED: "rate_limit_error",
}
# Where OpenAI has a code of its own for it; else ours, in lower case.
_CODES: Final[Mapping[str, str]] = {
    "FIELD_INVALID": "invalid_value",
    "FIELD_REQUIRED": "missing_required_parameter",
    "MODEL_NOT_FOUND": "model_not_found",
    "AGENT_NOT_FOUND": "model_not_found",
    "API_KEY_INVALID": "invalid_api_key",
    "CREDENTIALS_MISSING": "invalid_api_key",
    "TOKEN_EXPIRED": "invalid_api_key",
    "TOKEN_MALFORMED": "invalid_api_key",
    "TOKEN_UNTRUSTED": "invalid_api_key",
    "BUDGET_EXHAUSTED": "insufficient_quota",
    "RATE_LIMITED": "rate_limit_exceeded",
    "CONTEXT_TOO_LONG": "context_length_exceeded",
    "POLICY_BLOCKED": "content_policy_violation",
    "CALL_APPROVAL_REQUIRED": "content_policy_violation",
}
_SERVER: Final = frozenset(
    {StatusCode.INTERNAL, StatusCode.UNKNOWN, StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED, StatusCode.ABORTED}
)


# What OpenAI says of responses.
_PREVIOUS: Final = ("previous_response_id", "previous_response_not_found")


def body(error: MeshError) -> Mapping[str, Any]:
    reason = error.reason_name
    param = "model" if _CODES.get(reason) == "model_not_found" else error.field
    kind = "insufficient_quota" if reason == "BUDGET_EXHAUSTED" else _type(error)
    code: str | None = _CODES.get(reason, reason.lower())
    if reason == "GENERATION_NOT_FOUND" or (reason == "FIELD_INVALID" and error.field is None):
        code = _PREVIOUS[1] if error.field == _PREVIOUS[0] else None
    return {"error": {"message": error.message, "type": kind, "param": param, "code": code}}


def event(error: MeshError) -> bytes:
    return http.event(http.text(body(error)))


SHAPE: Final = Shape(body, event)


def _type(error: MeshError) -> str:
    if error.code in _SERVER:
        return "server_error"
    return _TYPES.get(error.code, "invalid_request_error")
