"""What the flow may rely on, whichever rates it has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import pytest

from services.tools.rates import LocalRates, Rates, RedisRates
from shared.clock import FakeClock
from shared.ids import RandomIds
from shared.redis import open_redis
from tests.support.valkey import valkey_url

__all__ = ("valkey_url",)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["local", "redis"])
async def rates(request: pytest.FixtureRequest, clock: FakeClock) -> AsyncIterator[Rates]:
    if request.param == "local":
        yield LocalRates(clock)
        return
    async with open_redis(request.getfixturevalue("valkey_url")) as redis:
        yield RedisRates(redis, clock, RandomIds())


@pytest.fixture
def adder() -> str:
    return f"acme/{uuid4()}"


async def test_the_call_over_the_limit_is_told_when_to_come_back(rates: Rates, clock: FakeClock, adder: str) -> None:
    assert await rates.take({adder: 2}) is None
    clock.advance(timedelta(seconds=20))
    assert await rates.take({adder: 2}) is None
    assert await rates.take({adder: 2}) == timedelta(seconds=40)


async def test_the_window_slides(rates: Rates, clock: FakeClock, adder: str) -> None:
    await rates.take({adder: 1})
    clock.advance(timedelta(seconds=59))
    assert await rates.take({adder: 1}) == timedelta(seconds=1)
    clock.advance(timedelta(seconds=1))
    assert await rates.take({adder: 1}) is None


async def test_a_refused_call_does_not_count_in_any_window(rates: Rates, clock: FakeClock, adder: str) -> None:
    await rates.take({f"{adder}/ada": 1})
    for _ in range(10):
        assert await rates.take({adder: 2, f"{adder}/ada": 1}) is not None
    assert await rates.take({adder: 2, f"{adder}/bob": 1}) is None
    clock.advance(MINUTE)
    assert await rates.take({adder: 2, f"{adder}/ada": 1}) is None


async def test_users_do_not_take_from_each_other_but_share_the_tools_limit(rates: Rates, adder: str) -> None:
    took = [await rates.take({adder: 2, f"{adder}/{user}": 1}) for user in ("ada", "ada", "bob", "eve")]
    assert [wait is None for wait in took] == [True, False, True, False]


async def test_no_limit_is_no_limit(rates: Rates, adder: str) -> None:
    assert {await rates.take({adder: 0}) for _ in range(100)} == {None}


async def test_many_at_once_never_exceed_the_limit(rates: Rates, adder: str) -> None:
    took = await asyncio.gather(*(rates.take({adder: 5}) for _ in range(50)))
    assert took.count(None) == 5


async def test_replicas_share_one_window(valkey_url: str, clock: FakeClock, adder: str) -> None:
    async with open_redis(valkey_url) as one, open_redis(valkey_url) as two:
        first, second = (RedisRates(redis, clock, RandomIds()) for redis in (one, two))
        assert await first.take({adder: 1}) is None
        assert await second.take({adder: 1}) is not None


async def test_without_redis_a_replica_counts_its_own(clock: FakeClock, adder: str) -> None:
    async with open_redis("redis://127.0.0.1:1/0") as redis:
        rates = RedisRates(redis, clock, RandomIds())
        assert await rates.take({adder: 1}) is None
        assert await rates.take({adder: 1}) == MINUTE


async def test_callers_of_long_ago_are_forgotten(clock: FakeClock) -> None:
    rates = LocalRates(clock)
    for number in range(10_000):
        await rates.take({str(number): 1})
    clock.advance(timedelta(minutes=2))
    await rates.take({"now": 1})
    assert len(rates._calls) == 1
