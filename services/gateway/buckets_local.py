"""Buckets in this process: what limits when Redis is away, and the honest fake."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from services.gateway.limits import Bucket, Level, Taken, tightest
from shared.clock import Clock

_KEPT: Final = 100_000


class LocalBuckets:
    """Counts this process's calls only. The buckets used longest ago are forgotten, which means full, first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def take(self, buckets: Sequence[Bucket], *, owe: bool = False) -> Taken:
        return self.take_now(buckets, owe=owe)

    def take_now(self, buckets: Sequence[Bucket], *, owe: bool = False) -> Taken:
        """Nothing else runs in between: there is no await in it."""
        now = self._clock.monotonic().total_seconds()
        levels = [self._level(bucket, now) for bucket in buckets]
        waits = [_wait(bucket, level) for bucket, level in zip(buckets, levels, strict=True)]
        if not owe and (longest := max(waits)) > 0:
            bucket = buckets[waits.index(longest)]
            return Taken(Level(bucket, int(levels[waits.index(longest)])), timedelta(seconds=longest))
        left = [self._keep(bucket, level - bucket.cost, now) for bucket, level in zip(buckets, levels, strict=True)]
        return Taken(tightest(left))

    def _level(self, bucket: Bucket, now: float) -> float:
        known = self._levels.get(bucket.key)
        if known is None:
            return bucket.rate.burst
        level, at = known
        return min(bucket.rate.burst, level + (now - at) * bucket.rate.per_second)

    def _keep(self, bucket: Bucket, level: float, now: float) -> Level:
        self._levels[bucket.key] = (level, now)
        self._levels.move_to_end(bucket.key)
        if len(self._levels) > _KEPT:
            self._levels.popitem(last=False)
        return Level(bucket, int(level // 1))


def _wait(bucket: Bucket, level: float) -> float:
    """Seconds until the bucket has what the call takes, at least one."""
    return max(0.0, (max(bucket.cost, 1) - level) / bucket.rate.per_second)
