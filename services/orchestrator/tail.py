"""The live end of logs in Redis: written before it is shown, fenced, and woken up for. It can be lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

from redis.asyncio import Redis

from services.orchestrator.store import Entry, Lease
from shared.log import log
from shared.redis import RedisLost

# Refuses a lower fence, appends what is new, and wakes the readers: one step, so that no writer that lost its lease
# can come between. KEYS: stream, fence. ARGV: fence, seconds to live, then sequence and bytes of each event.
_APPEND: Final = """
local held = tonumber(redis.call('GET', KEYS[2]) or '0')
if tonumber(ARGV[1]) < held then return 0 end
redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[2])
for i = 3, #ARGV, 2 do
  redis.pcall('XADD', KEYS[1], ARGV[i] .. '-0', 'e', ARGV[i + 1])
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('PUBLISH', KEYS[1], ARGV[#ARGV - 1])
return 1
"""


class LogTail:
    """Live events of all sessions, and who waits for them."""

    def __init__(self, redis: Redis, *, ttl: timedelta) -> None:
        self._redis = redis
        self._ttl = int(ttl.total_seconds())
        self._append = redis.register_script(_APPEND)
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._pubsub: Any = None

    async def append(self, lease: Lease, entries: Sequence[Entry]) -> bool:
        """Writes events. False when a later owner has written already; losing Redis is no reason to stop."""
        key = _key(lease.tenant, lease.session_id)
        numbered = [part for entry in entries for part in (entry.sequence, entry.payload)]
        try:
            return bool(await self._append(keys=[key, f"{key}:fence"], args=[lease.fence, self._ttl, *numbered]))
        except RedisLost as error:
            log.warning("tail.lost", error=type(error).__name__)
            return True

    async def read(self, tenant: str, session_id: str, after: int) -> Sequence[Entry]:
        """Events that follow `after` without a gap; nothing when Redis is away."""
        try:
            found: Any = await self._redis.xrange(_key(tenant, session_id), min=f"{after + 1}-0", count=500)
        except RedisLost:
            return []
        entries: list[Entry] = []
        for place, fields in found:
            sequence = int(place.split(b"-")[0])
            if sequence != after + 1 + len(entries):
                break
            entries.append(Entry(sequence, "", fields[b"e"]))
        return entries

    @contextmanager
    def woken(self, tenant: str, session_id: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever the session's log grows. The reader clears it."""
        key, event = _key(tenant, session_id), asyncio.Event()
        waiting = self._waiting.setdefault(key, set())
        waiting.add(event)
        if len(waiting) == 1 and self._pubsub:
            asyncio.ensure_future(self._subscribe(key))  # noqa: RUF006 - ends by itself; polling covers a loss
        try:
            yield event
        finally:
            waiting.discard(event)
            if not waiting and self._waiting.get(key) is waiting:
                del self._waiting[key]

    async def listen(self) -> None:
        """Turns wake-ups into events: one connection for all readers of this replica, for as long as it holds."""
        async with self._redis.pubsub() as pubsub:
            self._pubsub = pubsub
            await pubsub.subscribe("log:wake", *self._waiting)
            try:
                while True:
                    message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=5)
                    if message:
                        self._wake(message["channel"].decode())
            finally:
                self._pubsub = None

    def _wake(self, key: str) -> None:
        for event in self._waiting.get(key, ()):
            event.set()

    async def _subscribe(self, key: str) -> None:
        try:
            if self._pubsub:
                await self._pubsub.subscribe(key)
        except RedisLost:
            return


def _key(tenant: str, session_id: str) -> str:
    return f"log:{tenant}:{session_id}"
