"""A model provider's server that speaks as told: answers, refusals, stalls and cuts, on a real port."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from typing import Any

from aiohttp import web


class Act(Enum):
    """What the server can do in the middle of a stream besides writing."""

    CUT = "resets the connection"
    HANG = "says nothing until the caller leaves"
    MUTE = "the same, before it has answered with headers"


Step = bytes | timedelta | Act
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: a status, and what goes out piece by piece."""

    steps: Sequence[Step] = ()
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


def delta(text: str) -> bytes:
    return event({"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": text}}]})


def finish(reason: str = "stop") -> bytes:
    return event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})


def usage(prompt: int, completion: int, *, cached: int = 0) -> bytes:
    counted = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return event({"choices": [], "usage": counted | {"prompt_tokens_details": {"cached_tokens": cached}}})


def says(*words: str) -> Answer:
    """A whole answer, a token a write."""
    return Answer([*(delta(word) for word in words), finish(), usage(7, len(words)), DONE])


def refuses(status: int, code: str = "", **headers: str) -> Answer:
    body = {"error": {"message": "the prompt was: my secret", "type": "invalid_request_error", "code": code}}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer([json.dumps(body).encode()], status, named)


@dataclass(slots=True)
class OpenAIServer:
    """What it was told to answer, in order, and what it heard."""

    url: str = ""
    root: str = ""
    answers: list[Answer] = field(default_factory=list)
    heard: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    callers: list[Any] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.heard.append(await request.json())
        self.headers.append(request.headers)
        self.paths.append(request.path)
        self.keys.append(request.headers.get("authorization", ""))
        self.callers.append(request.transport and request.transport.get_extra_info("peername"))
        answer = self.answers.pop(0)
        if answer.steps and answer.steps[0] is Act.CUT:
            return await self._cut(request)
        if answer.steps and answer.steps[0] is Act.MUTE:
            await self._hang(request)
            return web.Response()
        kind = {"content-type": "text/event-stream" if answer.status == 200 else "application/json"}
        response = web.StreamResponse(status=answer.status, headers=kind | answer.headers)
        await response.prepare(request)
        for step in answer.steps:
            match step:
                case bytes():
                    await response.write(step)
                case timedelta():
                    await asyncio.sleep(step.total_seconds())
                case Act.CUT:
                    return await self._cut(request)
                case Act.HANG:
                    await self._hang(request)
        return response

    async def _cut(self, request: web.Request) -> web.StreamResponse:
        assert request.transport
        request.transport.close()
        return web.Response()

    async def _hang(self, request: web.Request) -> None:
        while request.transport and not request.transport.is_closing():
            await asyncio.sleep(0.005)
        self.left.set()


@asynccontextmanager
async def openai_server(path: str = "/v1/chat/completions") -> AsyncIterator[OpenAIServer]:
    """A server in the block. `url` is where OpenAI's API begins, `root` where the server does."""
    server = OpenAIServer()
    app = web.Application()
    app.router.add_post(path, server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.root = f"http://127.0.0.1:{runner.addresses[0][1]}"
        server.url = f"{server.root}/v1"
        yield server
    finally:
        await runner.cleanup()
