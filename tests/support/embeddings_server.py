"""A server that speaks OpenAI's embeddings as told: real vectors of the texts it gets, refusals, stalls and cuts."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from aiohttp import web

WIDTH = 8


class Act(Enum):
    """What the server can do instead of answering."""

    CUT = "closes the connection without a word"
    BREAK = "closes the connection in the middle of the answer"
    HANG = "says nothing until the caller leaves"
    STALL = "begins the answer and says nothing more"


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error as OpenAI words it."""

    status: int
    message: str = "the text was: my secret"
    headers: dict[str, str] = field(default_factory=dict)


Script = Act | Refusal | Callable[[dict[str, Any]], Any]


def numbers(text: str, width: int = WIDTH) -> list[float]:
    """What this server's model says of a text: not of unit length, the same every time."""
    digest = hashlib.sha512(text.encode()).digest()
    return [struct.unpack("<f", struct.pack("<f", value / 17 + 1))[0] for value in digest[:width]]


def encoded(values: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """The answer OpenAI gives, in whichever encoding was asked for."""
    width = asked.get("dimensions", WIDTH)
    rows = [numbers(text, width) for text in asked["input"]]
    shown = [encoded(row) if asked.get("encoding_format") == "base64" else row for row in rows]
    data = [{"object": "embedding", "index": place, "embedding": one} for place, one in enumerate(shown)]
    used = sum(len(text.split()) for text in asked["input"])
    return {
        "object": "list",
        "data": data,
        "model": asked["model"],
        "usage": {"prompt_tokens": used, "total_tokens": used},
    }


def only_floats(asked: dict[str, Any]) -> dict[str, Any]:
    """What servers answer that do not know base64."""
    return answer(asked | {"encoding_format": "float"})


@dataclass(slots=True)
class EmbeddingsServer:
    """What it does next, and what it heard."""

    url: str = ""
    script: list[Script] = field(default_factory=list)
    heard: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    callers: set[Any] = field(default_factory=set)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.heard.append(await request.json())
        self.keys.append(request.headers.get("authorization", ""))
        self.callers.add(request.transport and request.transport.get_extra_info("peername"))
        match self.script.pop(0) if self.script else answer:
            case Refusal(status, message, headers):
                body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}
                return web.json_response(body, status=status, headers=headers)
            case Act.CUT:
                assert request.transport
                request.transport.close()
                return web.Response()
            case Act() as act:
                return await self._misbehave(request, act)
            case makes:
                return web.json_response(makes(self.heard[-1]), dumps=json.dumps)

    async def _misbehave(self, request: web.Request, act: Act) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "application/json", "content-length": "1000"})
        if act is not Act.HANG:
            await response.prepare(request)
            await response.write(b'{"data": [')
        if act is Act.BREAK and request.transport:
            request.transport.close()
        while request.transport and not request.transport.is_closing():
            await asyncio.sleep(0.005)
        self.left.set()
        return response


@asynccontextmanager
async def embeddings_server() -> AsyncIterator[EmbeddingsServer]:
    """A server in the block."""
    server = EmbeddingsServer()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/v1/embeddings", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        yield server
    finally:
        await runner.cleanup()
