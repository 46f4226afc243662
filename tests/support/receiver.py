"""An address that webhooks are told at: keeps what comes and answers as it is told to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web


@dataclass(frozen=True)
class Got:
    """One delivery as it arrived."""

    path: str
    headers: Any
    data: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.data)


class Receiver:
    """`answers` are the statuses to come for a path, the last one for good; `slow` paths take their time."""

    def __init__(self) -> None:
        self.url = ""
        self.got: list[Got] = []
        self.answers: dict[str, list[int]] = {}
        self.slow: set[str] = set()

    def at(self, path: str) -> list[Got]:
        return [got for got in self.got if got.path == path]

    async def until(self, path: str, count: int) -> list[Got]:
        """The deliveries at a path, as soon as there are so many."""
        for _ in range(500):
            if len(self.at(path)) >= count:
                return self.at(path)
            await asyncio.sleep(0.02)
        raise AssertionError(f"{len(self.at(path))} of {count} deliveries at {path}")

    async def take(self, request: web.Request) -> web.Response:
        self.got.append(Got(request.path, request.headers, await request.read()))
        if request.path in self.slow:
            await asyncio.sleep(30)
        left = self.answers.get(request.path, [200])
        status = left.pop(0) if len(left) > 1 else left[0]
        return web.Response(status=status, headers={"retry-after": "0"} if status == 429 else {})


@asynccontextmanager
async def running_receiver() -> AsyncIterator[Receiver]:
    receiver, app = Receiver(), web.Application()
    app.router.add_post("/{path:.*}", receiver.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield receiver
    finally:
        await runner.cleanup()
