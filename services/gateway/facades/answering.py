"""How every facade answers: errors in its own shape, with an HTTP status while that can still be sent."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from google.api import httpbody_pb2
from grpc import StatusCode
from structlog.contextvars import get_contextvars

from services.gateway.facades import http
from shared.errors import MeshError
from shared.log import log

STATUSES: Final[Mapping[StatusCode, int]] = {
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.FAILED_PRECONDITION: 400,
    StatusCode.OUT_OF_RANGE: 400,
    StatusCode.UNAUTHENTICATED: 401,
    StatusCode.PERMISSION_DENIED: 403,
    StatusCode.NOT_FOUND: 404,
    StatusCode.ALREADY_EXISTS: 409,
    StatusCode.ABORTED: 409,
    StatusCode.RESOURCE_EXHAUSTED: 429,
    StatusCode.CANCELLED: 499,
    StatusCode.UNIMPLEMENTED: 501,
    StatusCode.UNAVAILABLE: 503,
    StatusCode.DEADLINE_EXCEEDED: 504,
}


@dataclass(frozen=True, slots=True)
class Shape:
    """How a protocol writes an error: as a body, and as an event of a stream. `named` is a header of its own for the
    request's id, beside x-request-id; empty: none.
    """

    body: Callable[[MeshError], Mapping[str, Any]]
    event: Callable[[MeshError], bytes]
    named: str = ""


def status(error: MeshError) -> int:
    return STATUSES.get(error.code, 500)


async def answered(context: Any, shape: Shape, bodies: http.Bodies) -> http.Bodies:
    """The bodies; an error among them in the protocol's shape."""
    begun = False
    named = {shape.named: request_id()} if shape.named else {}
    try:
        async with aclosing(bodies):  # type: ignore[type-var] # all of ours are generators
            async for body in bodies:
                if named and not begun:
                    await context.send_initial_metadata(tuple(named.items()))
                begun = True
                yield body
    except MeshError as error:
        log.info("facade.failed", reason=error.reason_name, begun=begun)
        if begun:
            yield httpbody_pb2.HttpBody(data=shape.event(error))
        else:
            yield await http.fail(context, status(error), shape.body(error), {**waits(error), **named})


def request_id() -> str:
    """Of the call being served."""
    return str(get_contextvars().get("request_id", ""))


def waits(error: MeshError) -> dict[str, str]:
    """When to come back, where the error says it."""
    if error.retry_after is None:
        return {}
    return {"retry-after": str(math.ceil(error.retry_after.total_seconds()))}
