"""Answers of libraries that speak ASGI, as bodies: the library writes JSON and events, Envoy has the connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from google.api import httpbody_pb2
from starlette.requests import Request
from starlette.types import ASGIApp

from services.gateway.facades import http
from shared.tasks import stopped

Endpoint = Callable[[Request], Awaitable[ASGIApp]]

_OK: Final = 200
_ORIGINAL_PATH: Final = "x-envoy-original-path"
# The body's own; Envoy writes the length.
_WRITTEN: Final = frozenset({"content-type", "content-length", "connection", "date"})
_BUFFERED: Final = 16
# From so many brackets on it is looked at how deep they are; what is too deep reaches the library as broken JSON.
_DEEP: Final = 500
_UNREADABLE: Final = b"["


async def answer(
    endpoint: Endpoint, context: Any, *, verb: str, path: Mapping[str, str], body: bytes = b""
) -> AsyncIterator[httpbody_pb2.HttpBody]:
    """What the endpoint answers to the call being served. Only the query is taken from the client's own address: what
    the call does was settled by the method that admission saw.
    """
    sent: asyncio.Queue[Mapping[str, Any] | None] = asyncio.Queue(_BUFFERED)
    request = Request(_scope(context, verb, path), _receiver(body if _readable(body) else _UNREADABLE))
    running = asyncio.create_task(_run(endpoint, request, sent), name="facade.asgi")
    try:
        kind = ""
        while (message := await sent.get()) is not None:
            if message["type"] == "http.response.start":
                kind = await _begin(context, message)
            elif message.get("body") or not message.get("more_body"):
                yield httpbody_pb2.HttpBody(content_type=kind, data=message.get("body", b""))
        await running
    finally:
        await stopped(running)


async def _run(endpoint: Endpoint, request: Request, sent: asyncio.Queue[Mapping[str, Any] | None]) -> None:
    async def send(message: Any) -> None:
        await sent.put(message)

    try:
        response = await endpoint(request)
        await response(request.scope, request.receive, send)
    finally:
        await sent.put(None)


async def _begin(context: Any, message: Mapping[str, Any]) -> str:
    """Sends status and headers; the content type."""
    headers = [(name.decode().lower(), value.decode()) for name, value in message.get("headers", ())]
    given = [(name, value) for name, value in headers if name not in _WRITTEN]
    if message["status"] != _OK:
        given.append((http.STATUS, str(message["status"])))
    await context.send_initial_metadata(tuple(given))
    return next((value for name, value in headers if name == "content-type"), "application/json")


def _scope(context: Any, verb: str, path: Mapping[str, str]) -> dict[str, Any]:
    metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
    query = urlsplit(metadata.get(_ORIGINAL_PATH, "")).query
    kept = [(key.encode(), value.encode()) for key, value in metadata.items() if not key.startswith("x-agentnet-")]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": verb,
        "path": "/",
        "raw_path": b"/",
        "root_path": "",
        "scheme": "http",
        "query_string": query.encode(),
        "headers": [
            *((key, value) for key, value in kept if key != b"content-type"),
            (b"content-type", b"application/json"),
        ],
        "path_params": dict(path),
        "state": {},
    }


def _readable(body: bytes) -> bool:
    """Whether it is not nested deeper than a parser goes: libraries call that a fault of their own."""
    if body.count(b"[") + body.count(b"{") < _DEEP:
        return True
    try:
        json.loads(body)
    except RecursionError:
        return False
    except ValueError:
        pass
    return True


def _receiver(body: bytes) -> Callable[[], Awaitable[Any]]:
    """The whole body, then silence: who leaves early cancels the call."""
    given = iter(({"type": "http.request", "body": body, "more_body": False},))

    async def receive() -> Any:
        if (message := next(given, None)) is not None:
            return message
        await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    return receive
