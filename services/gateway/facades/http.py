"""HTTP answers as google.api.HttpBody: status and headers travel as initial metadata, which Envoy turns into both."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, Final

from google.api import httpbody_pb2

# Envoy makes it the HTTP status of the answer and takes it off; see deploy/envoy/facades.py.
STATUS: Final = "x-agentnet-status"
_JSON: Final = "application/json"
_EVENTS: Final = "text/event-stream; charset=utf-8"
_QUIET_SECONDS: Final = 15.0
_SIGN_OF_LIFE: Final = b": still here\n\n"

Bodies = AsyncIterator[httpbody_pb2.HttpBody]


def text(value: Mapping[str, Any]) -> str:
    """JSON as these protocols write it: UTF-8, no spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def document(value: Mapping[str, Any]) -> httpbody_pb2.HttpBody:
    return httpbody_pb2.HttpBody(content_type=_JSON, data=text(value).encode())


async def fail(context: Any, status: int, body: Mapping[str, Any], headers: Mapping[str, str]) -> httpbody_pb2.HttpBody:
    """An error with its status, before anything else was sent."""
    await context.send_initial_metadata(((STATUS, str(status)), *headers.items()))
    return document(body)


def event(data: str, *, name: str = "") -> bytes:
    """One server-sent event."""
    return (f"event: {name}\n" if name else "").encode() + f"data: {data}\n\n".encode()


async def stream(events: AsyncGenerator[bytes, None]) -> Bodies:
    """Server-sent events as they come, with a comment on a quiet stream so that nobody takes it for dead."""
    async with aclosing(events):
        next_one = asyncio.ensure_future(anext(events, None))
        try:
            while True:
                done, _ = await asyncio.wait({next_one}, timeout=_QUIET_SECONDS)
                if not done:
                    yield httpbody_pb2.HttpBody(content_type=_EVENTS, data=_SIGN_OF_LIFE)
                    continue
                data = next_one.result()
                if data is None:
                    return
                yield httpbody_pb2.HttpBody(content_type=_EVENTS, data=data)
                next_one = asyncio.ensure_future(anext(events, None))
        finally:
            next_one.cancel()
            await asyncio.wait({next_one})
