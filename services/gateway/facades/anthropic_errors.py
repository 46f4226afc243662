"""Anthropic's errors: {"type": "error", "error": {type, message}}."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from grpc import StatusCode

from services.gateway.facades import http
from services.gateway.facades.answering import Shape, request_id
from shared.errors import MeshError

_TYPES: Final[Mapping[StatusCode, str]] = {
    StatusCode.INVALID_ARGUMENT: "invalid_request_error",
    StatusCode.FAILED_PRECONDITION: "invalid_request_error",
    StatusCode.OUT_OF_RANGE: "invalid_request_error",
    StatusCode.UNAUTHENTICATED: "authentication_error",
    StatusCode.PERMISSION_DENIED: "permission_error",
    StatusCode.NOT_FOUND: "not_found_error",
    StatusCode.UNIMPLEMENTED: "not_found_error",
    StatusCode.RESOURCE_EXHAUSTED: "rate_limit_error",
    StatusCode.UNAVAILABLE: "overloaded_error",
    StatusCode.DEADLINE_EXCEEDED: "timeout_error",
}


def body(error: MeshError) -> Mapping[str, Any]:
    kind = "billing_error" if error.reason_name == "BUDGET_EXHAUSTED" else _TYPES.get(error.code, "api_error")
    return {"type": "error", "error": {"type": kind, "message": error.message}, "request_id": request_id() or None}


def event(error: MeshError) -> bytes:
    return http.event(http.text(body(error)), name="error")


SHAPE: Final = Shape(body, event, named="request-id")
