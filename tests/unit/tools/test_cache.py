"""Kept results."""

from __future__ import annotations

from datetime import timedelta

from services.tools.cache import Cache
from shared.clock import FakeClock

MINUTE = timedelta(minutes=1)


def test_a_value_is_there_until_its_time_is_over() -> None:
    clock = FakeClock()
    cache: Cache[int] = Cache(clock)
    cache.put("a", 1, ttl=MINUTE)
    clock.advance(timedelta(seconds=59))
    assert cache.get("a") == 1
    clock.advance(timedelta(seconds=1))
    assert cache.get("a") is None


def test_the_least_recently_used_goes_first() -> None:
    cache: Cache[int] = Cache(FakeClock(), entries=2)
    cache.put("a", 1, ttl=MINUTE)
    cache.put("b", 2, ttl=MINUTE)
    assert cache.get("a") == 1
    cache.put("c", 3, ttl=MINUTE)
    assert [cache.get(key) for key in ("a", "b", "c")] == [1, None, 3]
