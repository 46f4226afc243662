"""Generations in Redis: what lets any replica, or this one after a restart, serve Attach. It can be lost."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

from redis.asyncio import Redis

from agentnet.inference.v1 import inference_service_pb2 as pb
from services.inference.errors import GenerationLost, GenerationNotFound
from services.inference.generation import HEARTBEAT, Generation, heartbeat
from shared.clock import Clock
from shared.errors import Unavailable
from shared.redis import RedisLost
from shared.tasks import together

_FLUSH_SECONDS: Final = 0.2
# What another replica's readers follow is not kept back for the batch, and they look as often while something comes.
_FOLLOWED_SECONDS: Final = 0.01
_FOLLOWING_SECONDS: Final = 0.02
_POLL_SECONDS: Final = 0.05
_READER_SECONDS: Final = 2
_OWNER_SECONDS: Final = 5
_TEND_SECONDS: Final = 0.25
_LEADER_SECONDS: Final = 5


class GenerationTail:
    """Writes live generations in batches; reads any."""

    def __init__(self, redis: Redis, *, ttl: timedelta, clock: Clock) -> None:
        self._redis = redis
        self._clock = clock
        self._ttl = int(ttl.total_seconds())
        self._dirty: dict[Generation, None] = {}
        self._wake = asyncio.Event()
        # What readers of other replicas follow, and whether any of it has something new.
        self._followed: frozenset[Generation] = frozenset()
        self._urgent = asyncio.Event()

    def note(self, generation: Generation) -> None:
        """It has something new, to be written with the next batch; at once when another replica's readers follow it."""
        self._dirty[generation] = None
        self._wake.set()
        if generation in self._followed:
            self._urgent.set()

    async def write(self, running: Callable[[], Iterable[Generation]]) -> None:
        """Writes what is noted and tends the marks of what runs, for as long as the service does."""
        await together(self._write(), self._tend_all(running))

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.flush()
            await self._until_the_next()

    async def _until_the_next(self) -> None:
        """Until the next batch is due only what is followed is written."""
        loop = asyncio.get_running_loop()
        due = loop.time() + _FLUSH_SECONDS
        while (left := due - loop.time()) > 0:
            try:
                async with asyncio.timeout(left):
                    await self._urgent.wait()
            except TimeoutError:
                return
            self._urgent.clear()
            if news := [found for found in self._followed if found.flushed < len(found.events)]:
                await self._flush(news)
            await asyncio.sleep(_FOLLOWED_SECONDS)

    async def _tend_all(self, running: Callable[[], Iterable[Generation]]) -> None:
        """Hears often who was called off, and renews marks three times while they last."""
        loop, marked = asyncio.get_running_loop(), -math.inf
        while True:
            await asyncio.sleep(_TEND_SECONDS)
            due = loop.time() - marked >= _OWNER_SECONDS / 3
            marked = loop.time() if due else marked
            await self._tend(list(running()), marking=due)

    async def claim(self, tenant: str, generation_id: str) -> bool:
        """Makes this replica the owner; False when the generation has or had one. Without Redis nobody is asked."""
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.exists(_key(tenant, generation_id))
        pipeline.set(_owner(tenant, generation_id), b"1", ex=_OWNER_SECONDS, nx=True)
        try:
            known, claimed = await pipeline.execute()
        except RedisLost:
            return True
        if known and claimed:
            await self.release(tenant, generation_id)
        return bool(claimed and not known)

    async def release(self, tenant: str, generation_id: str) -> None:
        """Takes a claim back: nothing was started."""
        with suppress(*RedisLost):
            await self._redis.delete(_owner(tenant, generation_id))

    async def lead(self, tenant: str, request: str, generation_id: str) -> str | None:
        """Makes a generation the one that answers a request for all replicas while it runs; else the id of the one that
        does, to be read here. Without Redis each leads.
        """
        pipeline = self._redis.pipeline(transaction=False)
        # Marked before anyone can find it: who reads what has written nothing yet waits as long as it is owned.
        pipeline.set(_owner(tenant, generation_id), b"1", ex=_OWNER_SECONDS)
        pipeline.set(_leader(tenant, request), generation_id, ex=_LEADER_SECONDS, nx=True, get=True)
        try:
            _, leader = await pipeline.execute()
        except RedisLost:
            return None
        return None if leader in (None, generation_id.encode()) else leader.decode()

    async def leads_no_more(self, tenant: str, request: str) -> None:
        """The next to ask for it leads."""
        with suppress(*RedisLost):
            await self._redis.delete(_leader(tenant, request))

    async def ask_to_cancel(self, tenant: str, generation_id: str) -> bool:
        """Tells the replica that owns a generation to call it off; False when none does."""
        try:
            if not await self._redis.exists(_owner(tenant, generation_id)):
                return False
            await self._redis.set(_cancelled(tenant, generation_id), b"1", ex=_OWNER_SECONDS)
        except RedisLost as error:
            raise Unavailable("the live tail does not answer", dependency="redis") from error
        return True

    async def _tend(self, running: list[Generation], *, marking: bool) -> None:
        """Keeps the marks of generations that say nothing for a while; hears who is called off, or read elsewhere."""
        if not running:
            self._followed = frozenset()
            return
        pipeline = self._redis.pipeline(transaction=False)
        for found in running if marking else ():
            pipeline.set(_owner(found.tenant, found.id), b"1", ex=_OWNER_SECONDS)
            pipeline.expire(_key(found.tenant, found.id), self._ttl)
            if found.answers:
                pipeline.set(_leader(found.tenant, found.answers), found.id, ex=_LEADER_SECONDS)
        pipeline.mget([_cancelled(found.tenant, found.id) for found in running])
        pipeline.mget([_reader(found.tenant, found.id) for found in running])
        try:
            *_, wishes, readers = await pipeline.execute()
        except RedisLost:
            return
        self._followed = frozenset(found for found, reader in zip(running, readers, strict=True) if reader)
        if self._followed:
            self._urgent.set()
        for found, wish in zip(running, wishes, strict=True):
            if wish:
                found.cancel()

    async def flush(self) -> None:
        """Writes what is new, as one entry a generation."""
        noted, self._dirty = self._dirty, {}
        dirty = [found for found in noted if found.flushed < len(found.events)]
        if dirty:
            await self._flush(dirty)

    async def _flush(self, dirty: list[Generation]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        marks = [(found, len(found.events)) for found in dirty]
        for found, mark in marks:
            key = _key(found.tenant, found.id)
            entries: dict[Any, Any] = {str(place): found.events[place] for place in range(found.flushed, mark)}
            pipeline.xadd(key, entries, id=f"{mark}-0")
            if not found.flushed or found.done:  # in between, what runs is tended
                pipeline.expire(key, self._ttl)
                pipeline.set(_owner(found.tenant, found.id), b"1", ex=_OWNER_SECONDS)
        try:
            await pipeline.execute(raise_on_error=False)
        except RedisLost:
            for found in dirty:  # readers of this replica are served from memory; the next batch has what is missed
                self.note(found)
            return
        for found, mark in marks:
            found.flushed = max(found.flushed, mark)

    async def read(self, tenant: str, generation_id: str, after: int) -> AsyncGenerator[bytes, None]:
        """A generation this replica does not hold.

        Raises GenerationNotFound when Redis has nothing, GenerationLost when its owner died before the end.
        """
        found, last = False, after
        heard_at = self._clock.monotonic()
        while True:
            alive, events = await self._since(tenant, generation_id, last)
            now = self._clock.monotonic()
            if events:
                heard_at = now
            elif alive and now - heard_at >= HEARTBEAT:
                heard_at = now
                yield heartbeat(generation_id, last, self._clock)
            for sequence, data in events:
                found, last = True, sequence
                yield data
                if _is_last(data):
                    return
            if not events and await self._over(tenant, generation_id, last, alive=alive, found=found):
                return
            await asyncio.sleep(_FOLLOWING_SECONDS if events else _POLL_SECONDS)

    async def left(self, tenant: str, generation_id: str) -> Sequence[bytes]:
        """All that stands of a generation, whoever owned it. Raises Unavailable."""
        try:
            entries: Any = await self._redis.xrange(_key(tenant, generation_id))
        except RedisLost as error:
            raise Unavailable("the live tail does not answer", dependency="redis") from error
        return [data for _, data in _numbered(entries)]

    async def _over(self, tenant: str, generation_id: str, last: int, *, alive: bool, found: bool) -> bool:
        """Whether a reader who finds nothing after `last` has read the end. Raises as `read` does."""
        newest = await self._newest(tenant, generation_id)
        if newest and _sequence(newest) > last:
            return False  # written since the look before: it is read, whatever it says
        if newest and _is_last(newest):
            return True
        if not alive and not newest and not found:
            raise GenerationNotFound(f"no generation {generation_id}", generation_id=generation_id)
        if not alive:
            raise GenerationLost("its owner died before it ended", generation_id=generation_id)
        return False

    async def _newest(self, tenant: str, generation_id: str) -> bytes | None:
        try:
            entries: Any = await self._redis.xrevrange(_key(tenant, generation_id), count=1)
        except RedisLost as error:
            raise Unavailable("the live tail does not answer", dependency="redis") from error
        return max(entries[0][1].items(), key=lambda entry: int(entry[0]))[1] if entries else None

    async def _since(self, tenant: str, generation_id: str, after: int) -> tuple[bool, list[tuple[int, bytes]]]:
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.exists(_owner(tenant, generation_id))
        pipeline.set(_reader(tenant, generation_id), b"1", ex=_READER_SECONDS)
        pipeline.xrange(_key(tenant, generation_id), min=f"{after + 1}-0")
        try:
            alive, _, entries = await pipeline.execute()
        except RedisLost as error:
            raise Unavailable("the live tail does not answer", dependency="redis") from error
        return bool(alive), [one for one in _numbered(entries) if one[0] > after]


def _numbered(entries: Iterable[tuple[Any, dict[bytes, bytes]]]) -> list[tuple[int, bytes]]:
    """Events by their sequence. Two flushes at once may write an event twice; it is one event."""
    numbered = {int(place) + 1: data for _, fields in entries for place, data in fields.items()}
    return sorted(numbered.items())


def _sequence(data: bytes) -> int:
    return pb.GenerateResponse.FromString(data).event.sequence


def _is_last(data: bytes) -> bool:
    event = pb.GenerateResponse.FromString(data).event
    return event.HasField("finished") or event.HasField("failed")


def _key(tenant: str, generation_id: str) -> str:
    return f"gen:{tenant}:{generation_id}"


def _cancelled(tenant: str, generation_id: str) -> str:
    return f"gen-cancel:{tenant}:{generation_id}"


def _owner(tenant: str, generation_id: str) -> str:
    return f"gen-owner:{tenant}:{generation_id}"


def _reader(tenant: str, generation_id: str) -> str:
    return f"gen-reader:{tenant}:{generation_id}"


def _leader(tenant: str, request: str) -> str:
    return f"gen-leader:{tenant}:{request}"
