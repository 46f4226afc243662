"""Calls taken ahead of shared buckets, so that most are limited without asking Redis.

A share is at most a hundredth of its bucket's burst, and what is left of it after a second is forgotten. It is taken
only of a bucket that is asked more than once a second and is at least half full. So no more is let through than the
shared bucket gave, one that runs low is asked on every call, and a replica keeps at most its share from others.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from services.gateway.limits import Bucket, Buckets, Level, Taken, tightest
from shared.clock import Clock
from shared.errors import Unavailable

_PART: Final = 100
_MOST: Final = 32
_LEAST: Final = 4
_HELD: Final = timedelta(seconds=1)
_KEPT: Final = 10_000


@dataclass(slots=True)
class _Share:
    """Calls taken ahead of one bucket, and what that bucket held when it was asked last."""

    ends: timedelta
    left: int = 0
    behind: int = 0
    renewing: bool = False


class LeasedBuckets:
    """Over shared buckets, which are still asked for what costs other than one call and what is owed."""

    def __init__(self, shared: Buckets, clock: Clock) -> None:
        self._shared = shared
        self._clock = clock
        self._shares: OrderedDict[str, _Share] = OrderedDict()
        self._renewals: set[asyncio.Task[None]] = set()

    async def take(self, buckets: Sequence[Bucket], *, owe: bool = False) -> Taken:
        """Raises what the shared buckets raise."""
        if owe or any(bucket.cost != 1 for bucket in buckets):
            return await self._shared.take(buckets, owe=owe)
        now = self._clock.monotonic()
        if held := self._held(buckets, now):
            return Taken(tightest([self._spend(*one) for one in zip(buckets, held, strict=True)]))
        taken = await self._shared.take(buckets)
        if not taken.wait and _plenty(taken.tightest):
            self._lease(buckets, now)
        return taken

    def _held(self, buckets: Iterable[Bucket], now: timedelta) -> list[_Share]:
        """The shares of all, or none when one has nothing left."""
        held: list[_Share] = []
        for bucket in buckets:
            share = self._shares.get(bucket.key)
            if share is None or not share.left or share.ends <= now:
                return []
            held.append(share)
        return held

    def _spend(self, bucket: Bucket, share: _Share) -> Level:
        share.left -= 1
        level = Level(bucket, share.behind + share.left)
        if share.left * 2 < _ahead(bucket) and _plenty(level):
            self._renew(bucket, share)
        return level

    def _lease(self, buckets: Iterable[Bucket], now: timedelta) -> None:
        """Of those that were asked a moment ago too."""
        for bucket in buckets:
            share = self._shares.pop(bucket.key, None)
            if share is None or (share.ends <= now and not share.renewing):
                share = _Share(now + _HELD)
            elif not share.left:
                self._renew(bucket, share)
            self._shares[bucket.key] = share
        while len(self._shares) > _KEPT:
            self._shares.popitem(last=False)

    def _renew(self, bucket: Bucket, share: _Share) -> None:
        if share.renewing or not _ahead(bucket):
            return
        share.renewing = True
        renewal = asyncio.create_task(self._renewed(bucket, share))
        self._renewals.add(renewal)
        renewal.add_done_callback(self._renewals.discard)

    async def _renewed(self, bucket: Bucket, share: _Share) -> None:
        try:
            taken = await self._shared.take([replace(bucket, cost=_ahead(bucket))])
        except Unavailable:
            return
        finally:
            share.renewing = False
        now = self._clock.monotonic()
        if not taken.wait:
            share.left = _ahead(bucket) + (share.left if share.ends > now else 0)
            share.ends, share.behind = now + _HELD, taken.tightest.left


def _ahead(bucket: Bucket) -> int:
    """None of a small bucket: of one that is for guesses, say, each is counted where all can see."""
    part = bucket.rate.burst // _PART
    return min(_MOST, part) if part >= _LEAST else 0


def _plenty(level: Level) -> bool:
    return level.left * 2 >= level.bucket.rate.burst
