"""An HTTP API on the loopback, for tools to reach."""

from __future__ import annotations

import asyncio
import zlib
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

SECRET = "sk-topsecret-1"


def bomb(mebibytes: int) -> bytes:
    """So much of nothing, a thousandth as large."""
    packed = zlib.compressobj(9, wbits=31)
    return b"".join(packed.compress(bytes(1 << 20)) for _ in range(mebibytes)) + packed.flush()


@dataclass
class Api:
    """An HTTP API that does as told and remembers what it was asked."""

    port: int = 0
    asked: list[tuple[str, str, Any, dict[str, str]]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    answer: Any = None
    text: str | None = None
    stall: bool = False
    coded: tuple[str, bytes] | None = None  # a coding and a body in it

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else None
        self.asked.append((request.method, request.raw_path, body, dict(request.headers)))
        if self.stall:
            await asyncio.sleep(30)
        if self.coded:
            coding, coded = self.coded
            headers = {"Content-Encoding": coding, "Content-Type": "application/json"}
            return web.Response(body=coded, headers=headers)
        if self.text is not None:
            return web.Response(text=self.text, headers={"Location": "http://169.254.169.254/"})
        status = self.statuses.pop(0) if self.statuses else 200
        return web.json_response(self.answer, status=status, headers={"Location": "http://169.254.169.254/"})
