"""How often a tool may be called: windows of a minute that slide, one of the tool and one of each of its users."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final, Protocol

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from shared.clock import Clock
from shared.ids import Ids
from shared.log import log
from shared.redis import RedisLost
from shared.telemetry import meter

_WINDOW: Final = timedelta(minutes=1)
_MANY_KEYS: Final = 10_000
_MICROSECONDS: Final = timedelta(microseconds=1)
_fallbacks = meter.create_counter("tool_rate_fallbacks_total", description="calls limited by this replica alone")
# All windows are looked at before one is counted: a refused call costs nothing.
_SCRIPT: Final = """
local now, window, member = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local wait = 0
for place, key in ipairs(KEYS) do
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now - window)
  if redis.call('ZCARD', key) >= tonumber(ARGV[3 + place]) then
    local oldest = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
    wait = math.max(wait, tonumber(oldest[2]) + window - now)
  end
end
if wait > 0 then return wait end
for _, key in ipairs(KEYS) do
  redis.call('ZADD', key, now, member)
  redis.call('PEXPIRE', key, math.ceil(window / 1000))
end
return 0
"""


class Rates(Protocol):
    async def take(self, limits: Mapping[str, int]) -> timedelta | None:
        """Counts a call in every window, by key and calls a minute (0: no window). When one is full: counts nothing and
        says how long until there is room.
        """


class LocalRates:
    """The calls that this replica saw."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._calls: dict[str, deque[timedelta]] = {}

    async def take(self, limits: Mapping[str, int]) -> timedelta | None:
        now = self._clock.monotonic()
        windows = {key: self._window(key, now) for key, limit in limits.items() if limit}
        waits = [window[0] + _WINDOW - now for key, window in windows.items() if len(window) >= limits[key]]
        if waits:
            return max(waits)
        for window in windows.values():
            window.append(now)
        self._forget_the_quiet(now)
        return None

    def _window(self, key: str, now: timedelta) -> deque[timedelta]:
        window = self._calls.setdefault(key, deque())
        while window and window[0] <= now - _WINDOW:
            window.popleft()
        return window

    def _forget_the_quiet(self, now: timedelta) -> None:
        if len(self._calls) > _MANY_KEYS:
            self._calls = {key: calls for key, calls in self._calls.items() if calls and calls[-1] > now - _WINDOW}


class RedisRates:
    """The calls of all replicas. While Redis is away each replica counts its own, and a metric says so."""

    def __init__(self, redis: Redis, clock: Clock, ids: Ids) -> None:
        self._script: Any = redis.register_script(_SCRIPT)
        self._clock = clock
        self._ids = ids
        self._local = LocalRates(clock)

    async def take(self, limits: Mapping[str, int]) -> timedelta | None:
        limited = {f"tools:rate:{key}": limit for key, limit in limits.items() if limit}
        if not limited:
            return None
        now = int(self._clock.now().timestamp() * 1_000_000)
        values = [now, _WINDOW // _MICROSECONDS, self._ids.new("call"), *limited.values()]
        try:
            wait = await self._script(keys=list(limited), args=values)
        except (*RedisLost, ResponseError) as error:
            _fallbacks.add(1)
            log.warning("tools.rates.local", error=type(error).__name__)
            return await self._local.take(limits)
        return timedelta(microseconds=int(wait)) if wait else None
