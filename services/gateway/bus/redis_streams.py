"""The bus's way through Redis Streams: news between replicas, and what services of the mesh publish."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from services.gateway.bus.bus import Bus, LocalLive
from services.gateway.bus.intake import Published, take
from shared.bus import LOGS, STREAM
from shared.log import log
from shared.redis import RedisLost

_NEWS: Final = "events:news"
_KEPT_NEWS: Final = 10_000
_GROUP: Final = "gateway"
_BATCH: Final = 200
_BLOCK_MILLISECONDS: Final = 1000
_ABANDONED_MILLISECONDS: Final = 30_000

Entry = tuple[bytes, Mapping[bytes, bytes]]


class RedisLive:
    """News for all replicas over one stream; each replica reads it once, for all its listeners."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._local = LocalLive()

    async def told(self, tenant: str) -> None:
        self._local.wake(tenant)
        try:
            await self._redis.xadd(_NEWS, {"tenant": tenant}, maxlen=_KEPT_NEWS, approximate=True)
        except RedisLost:
            log.warning("bus.news_lost")

    async def wait(self, tenant: str, *, limit: timedelta) -> None:
        await self._local.wait(tenant, limit=limit)

    async def listen(self) -> None:
        """Wakes this process's listeners, for ever."""
        seen: Any = "$"
        while True:
            found: Any = await self._redis.xread({_NEWS: seen}, count=_BATCH, block=_BLOCK_MILLISECONDS)
            for _, entries in found or []:
                for entry_id, fields in entries:
                    seen = entry_id
                    self._local.wake(fields[b"tenant"].decode())


class Intake:
    """Takes what services publish into the bus: at least once from Redis, once into the store by the event's id."""

    def __init__(self, redis: Redis, bus: Bus, *, consumer: str, platform: str) -> None:
        self._redis = redis
        self._bus = bus
        self._consumer = consumer
        self._platform = platform

    async def run(self) -> None:
        """For ever. What a replica took and did not finish, another takes up after half a minute."""
        for stream in (STREAM, LOGS):
            await self._ensure_group(stream)
        while True:
            for stream in (STREAM, LOGS):
                left: Any = await self._redis.xautoclaim(
                    stream, _GROUP, self._consumer, min_idle_time=_ABANDONED_MILLISECONDS, count=_BATCH
                )
                await self._take(stream, left[1])
            new: Any = await self._redis.xreadgroup(
                _GROUP, self._consumer, {STREAM: ">", LOGS: ">"}, count=_BATCH, block=_BLOCK_MILLISECONDS
            )
            for stream, entries in new or []:
                await self._take(stream.decode(), entries)

    async def _take(self, stream: str, entries: Sequence[Entry]) -> None:
        found = [_published(f"{stream}-{entry_id.decode()}", fields) for entry_id, fields in entries]
        await take(self._bus, self._platform, found)
        if entries:
            await self._redis.xack(stream, _GROUP, *(entry_id for entry_id, _ in entries))

    async def _ensure_group(self, stream: str) -> None:
        try:
            await self._redis.xgroup_create(stream, _GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise


def _published(default_id: str, fields: Mapping[bytes, bytes]) -> Published:
    return Published(default_id, fields.get(b"tenant", b"").decode(), fields.get(b"event", b"").decode())


async def pause_when_lost(work: Any) -> None:
    """Runs work that talks to Redis for ever, and rests a moment when Redis is away."""
    while True:
        try:
            await work()
        except RedisLost:
            await asyncio.sleep(1)
