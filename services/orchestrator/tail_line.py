"""One script of Redis on one held connection: what every token needs, at a third of what a call by the pool costs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, cast

from hiredis import pack_command
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import NoScriptError

from shared.redis import RedisLost

# Longer is a lost connection; then the client tries as it does for every call.
_SECONDS: Final = 1.0

Argument = str | bytes | int


class Line:
    """Called by one task at a time. The client closes the connection with its own."""

    def __init__(self, redis: Redis, script: str) -> None:
        self._redis = redis
        self._script = redis.register_script(script)
        self._connection: AbstractConnection | None = None

    async def call(self, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """The script's answer. What breaks here, or is not known there yet, the client tries anew. Raises RedisLost."""
        try:
            return await self._held(keys, arguments)
        except (NoScriptError, *RedisLost):
            return await self._script(keys=keys, args=arguments)

    async def _held(self, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        if self._connection is None:
            self._connection = await self._redis.connection_pool.get_connection()  # type: ignore[no-untyped-call]
            self._connection.socket_timeout = None  # one limit for the call instead of one for each of its steps
        packed = pack_command(cast("Any", ("EVALSHA", self._script.sha, len(keys), *keys, *arguments)))
        async with asyncio.timeout(_SECONDS):
            await self._connection.send_packed_command([packed], check_health=False)
            return await self._connection.read_response()
