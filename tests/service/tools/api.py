"""An HTTP API on the loopback, for tools to reach."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

SECRET = "sk-topsecret-1"


@dataclass
class Api:
    """An HTTP API that does as told and remembers what it was asked."""

    port: int = 0
    asked: list[tuple[str, str, Any, dict[str, str]]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    answer: Any = None
    text: str | None = None
    stall: bool = False

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else None
        self.asked.append((request.method, request.raw_path, body, dict(request.headers)))
        if self.stall:
            await asyncio.sleep(30)
        if self.text is not None:
            return web.Response(text=self.text, headers={"Location": "http://169.254.169.254/"})
        status = self.statuses.pop(0) if self.statuses else 200
        return web.json_response(self.answer, status=status, headers={"Location": "http://169.254.169.254/"})
