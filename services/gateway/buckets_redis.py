"""Buckets all replicas share, in Redis. When Redis is away each process limits by itself, and a metric says so."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from services.gateway.buckets_local import LocalBuckets
from services.gateway.limits import Bucket, Buckets, Level, Taken, tightest
from shared.clock import Clock
from shared.errors import Unavailable
from shared.log import log
from shared.redis import RedisLost
from shared.telemetry import meter

_SCRIPT: Final = Path(__file__).with_name("buckets.lua").read_text()
_PATIENCE_SECONDS: Final = 0.25
_PAUSE: Final = timedelta(seconds=1)

_fallbacks = meter.create_counter("gateway_limit_fallbacks", description="takes from the local buckets: Redis was away")

_Waiting = tuple[Sequence[Bucket], bool, "asyncio.Future[Taken]"]


class RedisBuckets:
    """One script a take; takes that wait for one another share a round trip."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._sha = ""
        self._waiting: list[_Waiting] = []
        self._sending: asyncio.Task[None] | None = None

    async def take(self, buckets: Sequence[Bucket], *, owe: bool = False) -> Taken:
        """Raises Unavailable when Redis does not answer."""
        answer: asyncio.Future[Taken] = asyncio.get_running_loop().create_future()
        self._waiting.append((buckets, owe, answer))
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send())
        return await answer

    async def _send(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                answers = await self._run(batch)
            except (*RedisLost, RedisError) as error:
                _settle(batch, [error] * len(batch))
            else:
                _settle(batch, answers)

    async def _run(self, batch: Sequence[_Waiting]) -> Sequence[Any]:
        if not self._sha:
            self._sha = await self._redis.script_load(_SCRIPT)
        async with self._redis.pipeline(transaction=False) as pipe:
            for buckets, owe, _ in batch:
                pipe.evalsha(self._sha, len(buckets), *_arguments(buckets, owe=owe))
            answers: Sequence[Any] = await pipe.execute(raise_on_error=False)
        if any(isinstance(answer, NoScriptError) for answer in answers):
            self._sha = ""
        return answers


class FallbackBuckets:
    """The shared buckets while they answer at once, else local ones for a second before they are tried again."""

    def __init__(self, shared: Buckets, local: LocalBuckets, clock: Clock) -> None:
        self._shared = shared
        self._local = local
        self._clock = clock
        self._away_until = timedelta.min

    async def take(self, buckets: Sequence[Bucket], *, owe: bool = False) -> Taken:
        if self._clock.monotonic() >= self._away_until:
            try:
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    return await self._shared.take(buckets, owe=owe)
            except (Unavailable, TimeoutError):
                self._away_until = self._clock.monotonic() + _PAUSE
                log.warning("limits.redis_away")
        _fallbacks.add(1)
        return self._local.take_now(buckets, owe=owe)


def _arguments(buckets: Sequence[Bucket], *, owe: bool) -> list[str]:
    """The keys, then all numbers in one: each argument costs the client more than the script's parsing."""
    numbers = [f"{one.rate.per_second} {one.rate.burst} {one.cost}" for one in buckets]
    return [*(bucket.key for bucket in buckets), " ".join(("1" if owe else "0", *numbers))]


def _settle(batch: Sequence[_Waiting], answers: Sequence[Any]) -> None:
    for (buckets, _, future), answer in zip(batch, answers, strict=True):
        if future.done():
            continue
        if isinstance(answer, Exception):
            future.set_exception(Unavailable("the limits' store does not answer", dependency="redis"))
        else:
            future.set_result(_taken(buckets, answer))


def _taken(buckets: Sequence[Bucket], answer: Sequence[int]) -> Taken:
    short, wait, *left = answer
    levels = [Level(bucket, amount) for bucket, amount in zip(buckets, left, strict=True)]
    if wait:
        return Taken(levels[short - 1], timedelta(milliseconds=wait))
    return Taken(tightest(levels))
