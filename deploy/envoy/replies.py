"""What Envoy answers itself, in everyone's words: google.rpc.Status, as JSON over REST and in trailers over gRPC."""

from __future__ import annotations

import base64
from collections.abc import Iterator

from google.protobuf import json_format

from deploy.envoy.inputs import Config
from shared.errors import STATUS_TRAILER, DeadlineExceeded, MeshError, Unavailable

_CODES = {400: 3, 408: 4, 413: 8, 431: 8, 500: 13}
_AWAY = Unavailable("a service this call needs does not answer; try again in a moment")
_DOOR = Unavailable("nobody can be let in while gateway does not answer; try again in a moment", dependency="gateway")
# Over gRPC Envoy says UNAVAILABLE for 504, and details must agree with the status.
_LATE = Unavailable("the service did not answer in time")
_LATE_REST = DeadlineExceeded(_LATE.message)
_JSON = "application/json"
_TRANSCODED = "x-envoy-original-path"


def local_replies() -> Config:
    """Gateway's refusals are said already. A call that got nowhere is told so, without what Envoy saw of the
    connection: that is in the access log.
    """
    asked: Config = {"response_flag_filter": {"flags": ["UAEX"]}}
    mappers: list[Config] = [
        {"filter": _both(asked, _answered(400))},
        # Gateway's word for that it cannot tell: of a 5xx Envoy keeps none.
        {"filter": _both(asked, _answered(421)), "status_code": 503},
        *_told(_both(asked, _answered(503)), _DOOR, _DOOR),
        *_told(_answered(502), _AWAY, _AWAY),
        *_told(_answered(503), _AWAY, _AWAY),
        *_told(_answered(504), _LATE, _LATE_REST),
        *(one for status, code in _CODES.items() for one in _repeated(status, code)),
    ]
    return {"mappers": mappers}


def _told(when: Config, grpc: MeshError, rest: MeshError) -> Iterator[Config]:
    details = base64.b64encode(grpc.status().SerializeToString()).decode().rstrip("=")
    yield {
        "filter": _both(when, *_GRPC),
        "body_format_override": {"text_format_source": {"inline_string": grpc.message}},
        "headers_to_add": [{"header": {"key": STATUS_TRAILER, "value": details}}],
    }
    body = json_format.MessageToDict(rest.status())
    yield {"filter": when, "body_format_override": {"content_type": _JSON, "json_format": body}}


def _repeated(status: int, code: int) -> Iterator[Config]:
    body = {"code": code, "message": "%LOCAL_REPLY_BODY%", "details": []}
    text = {"text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"}}
    yield {"filter": _both(_answered(status), *_GRPC), "body_format_override": text}
    yield {"filter": _answered(status), "body_format_override": {"content_type": _JSON, "json_format": body}}


def _answered(status: int) -> Config:
    value = {"default_value": status, "runtime_key": f"reply_{status}"}
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}


def _both(*filters: Config) -> Config:
    return {"and_filter": {"filters": list(filters)}}


# A REST call has the type of a gRPC call once it is transcoded.
_GRPC: tuple[Config, Config] = (
    {"header_filter": {"header": {"name": "content-type", "string_match": {"prefix": "application/grpc"}}}},
    {"header_filter": {"header": {"name": _TRANSCODED, "present_match": False}}},
)
