"""A circuit breaker a provider: closed, open after failures in a row, half-open with one probe after a cooldown.

Replicas share it through Redis; while Redis is away each replica counts for itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Protocol

from redis.asyncio import Redis

from shared.clock import Clock
from shared.redis import RedisLost
from shared.telemetry import meter

_LOOK_SECONDS: Final = 0.25
_REMEMBERED: Final = 10
"""Cooldowns that a tripped breaker is remembered without anyone asking."""
_opened = meter.create_counter("provider_breaker_opened_total", description="breakers opened, by provider")

_FAILED: Final = """
local failures = redis.call('INCR', KEYS[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
if failures < tonumber(ARGV[1]) and redis.call('EXISTS', KEYS[3]) == 0 then return 0 end
redis.call('SET', KEYS[2], '1', 'PX', ARGV[3])
redis.call('SET', KEYS[3], '1', 'PX', ARGV[4])
redis.call('DEL', KEYS[4])
return 1
"""
_ADMITS: Final = """
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
if redis.call('EXISTS', KEYS[3]) == 0 then return 1 end
if redis.call('SET', KEYS[4], '1', 'NX', 'PX', ARGV[1]) then return 1 end
return 0
"""


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class BreakerLimits:
    """When breakers open and for how long."""

    failures: int = 5
    window: timedelta = timedelta(seconds=30)
    cooldown: timedelta = timedelta(seconds=10)


class Breakers(Protocol):
    """The breakers of all providers."""

    async def admits(self, provider: str) -> bool:
        """Whether a call may be made now. In half-open one caller is told yes, and must report."""

    async def failed(self, provider: str) -> bool:
        """A call showed a fault of the provider. Whether its breaker is open now."""

    async def succeeded(self, provider: str) -> None:
        """A call was answered."""

    async def state(self, provider: str) -> BreakerState:
        """For those who look."""


@dataclass(slots=True)
class _Counts:
    failures: int = 0
    last_failure: datetime | None = None
    open_until: datetime | None = None
    tripped: bool = False
    probe_until: datetime | None = None


@dataclass(slots=True)
class LocalBreakers:
    """This process alone."""

    clock: Clock
    limits: BreakerLimits = field(default_factory=BreakerLimits)
    _counts: dict[str, _Counts] = field(default_factory=dict)

    async def admits(self, provider: str) -> bool:
        counts, now = self._of(provider), self.clock.now()
        if counts.open_until and now < counts.open_until:
            return False
        if counts.tripped:
            if counts.probe_until and now < counts.probe_until:
                return False
            counts.probe_until = now + self.limits.cooldown
        return True

    async def failed(self, provider: str) -> bool:
        counts, now = self._of(provider), self.clock.now()
        if counts.last_failure and now - counts.last_failure > self.limits.window:
            counts.failures = 0
        counts.failures, counts.last_failure = counts.failures + 1, now
        if counts.failures >= self.limits.failures or counts.tripped:
            counts.open_until, counts.tripped, counts.probe_until = now + self.limits.cooldown, True, None
        return counts.tripped

    async def succeeded(self, provider: str) -> None:
        self._counts.pop(provider, None)

    async def state(self, provider: str) -> BreakerState:
        counts = self._of(provider)
        if counts.open_until and self.clock.now() < counts.open_until:
            return BreakerState.OPEN
        return BreakerState.HALF_OPEN if counts.tripped else BreakerState.CLOSED

    def _of(self, provider: str) -> _Counts:
        return self._counts.setdefault(provider, _Counts())


class RedisBreakers:
    """Shared by replicas. A provider in good health costs no round trip: only marks of failure are kept."""

    def __init__(self, redis: Redis, *, clock: Clock, limits: BreakerLimits | None = None) -> None:
        self._redis = redis
        self._limits = limits or BreakerLimits()
        self._local = LocalBreakers(clock, self._limits)
        self._suspect: set[str] = set()
        self._failed = redis.register_script(_FAILED)
        self._admits = redis.register_script(_ADMITS)

    async def watch(self, providers: Collection[str]) -> None:
        """Learns what other replicas found, four times a second, for as long as the service runs."""
        while True:
            await self.look(providers)
            await asyncio.sleep(_LOOK_SECONDS)

    async def look(self, providers: Collection[str]) -> None:
        """One look."""
        names = list(providers)
        try:
            found: list[Any] = await self._redis.mget([key for name in names for key in _keys(name)[:3:2]])
        except RedisLost:
            return
        marks = zip(names, found[::2], found[1::2], strict=True)
        self._suspect = {name for name, failures, tripped in marks if failures or tripped}

    async def admits(self, provider: str) -> bool:
        if provider not in self._suspect:
            return True
        try:
            return bool(await self._admits(keys=_keys(provider), args=[_milliseconds(self._limits.cooldown)]))
        except RedisLost:
            return await self._local.admits(provider)

    async def failed(self, provider: str) -> bool:
        self._suspect.add(provider)
        open_here = await self._local.failed(provider)
        limits = self._limits
        spans = (limits.window, limits.cooldown, limits.cooldown * _REMEMBERED)
        try:
            opened = await self._failed(keys=_keys(provider), args=[limits.failures, *map(_milliseconds, spans)])
        except RedisLost:
            return open_here
        if opened:
            _opened.add(1, {"provider": provider})
        return bool(opened)

    async def succeeded(self, provider: str) -> None:
        if provider not in self._suspect:
            return
        self._suspect.discard(provider)
        await self._local.succeeded(provider)
        try:
            await self._redis.delete(*_keys(provider))
        except RedisLost:
            return

    async def state(self, provider: str) -> BreakerState:
        try:
            still, tripped = await self._redis.mget(_keys(provider)[1:3])
        except RedisLost:
            return await self._local.state(provider)
        if still:
            return BreakerState.OPEN
        return BreakerState.HALF_OPEN if tripped else BreakerState.CLOSED


def _keys(provider: str) -> list[str]:
    return [f"breaker:{{{provider}}}:{part}" for part in ("failures", "open", "tripped", "probe")]


def _milliseconds(span: timedelta) -> int:
    return int(span.total_seconds() * 1000)
