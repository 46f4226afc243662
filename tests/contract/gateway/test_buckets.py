"""What a limit may rely on, whether its buckets are in this process or in a real Valkey."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from services.gateway.buckets_leased import LeasedBuckets
from services.gateway.buckets_local import LocalBuckets
from services.gateway.buckets_redis import FallbackBuckets, RedisBuckets
from services.gateway.limits import Bucket, Buckets, Rate, Taken
from shared.clock import FakeClock, SystemClock
from shared.redis import open_redis
from tests.support.valkey import free_port, running_valkey

SLOW = Rate(0.001, 3)


@pytest.fixture(params=["local", "redis", "leased"])
async def buckets(request: pytest.FixtureRequest) -> AsyncIterator[Buckets]:
    if request.param == "local":
        yield LocalBuckets(SystemClock())
        return
    async with open_redis(request.getfixturevalue("valkey_url")) as redis:
        shared = RedisBuckets(redis)
        yield LeasedBuckets(shared, SystemClock()) if request.param == "leased" else shared


def bucket(name: str, rate: Rate = SLOW, cost: int = 1) -> Bucket:
    return Bucket("user", f"limit:{{{name}}}", rate, cost)


@pytest.fixture
def name() -> str:
    return str(uuid4())


async def test_a_burst_is_let_through_and_then_the_wait_is_told(buckets: Buckets, name: str) -> None:
    taken = [await buckets.take([bucket(name)]) for _ in range(4)]
    assert [one.tightest.left for one in taken] == [2, 1, 0, 0]
    assert not any(one.wait for one in taken[:3])
    assert timedelta(seconds=990) < taken[3].wait <= timedelta(seconds=1000)


async def test_it_fills_again_at_its_rate_and_never_above_its_burst(buckets: Buckets, name: str) -> None:
    fast = bucket(name, Rate(50, 2))
    for _ in range(2):
        await buckets.take([fast])
    assert (await buckets.take([fast])).wait
    await asyncio.sleep(0.2)
    taken = [await buckets.take([fast]) for _ in range(3)]
    assert [bool(one.wait) for one in taken] == [False, False, True]


async def test_all_buckets_are_taken_from_or_none(buckets: Buckets, name: str) -> None:
    wide, narrow = bucket(f"{{{name}}}:wide", Rate(0.001, 10)), bucket(f"{{{name}}}:narrow", Rate(0.001, 1))
    assert not (await buckets.take([wide, narrow])).wait
    refused = [await buckets.take([wide, narrow]) for _ in range(5)]
    assert all(one.wait and one.tightest.bucket == narrow for one in refused)
    assert (await buckets.take([wide])).tightest.left == 8


async def test_what_was_spent_is_owed_and_must_be_made_up(buckets: Buckets, name: str) -> None:
    assert not (await buckets.take([bucket(name, cost=0)])).wait
    assert (await buckets.take([bucket(name, cost=10)], owe=True)).tightest.left == -7
    assert (await buckets.take([bucket(name, cost=0)])).wait > timedelta(seconds=7000)


async def test_many_at_once_take_no_more_than_there_is(buckets: Buckets, name: str) -> None:
    taken = await asyncio.gather(*(buckets.take([bucket(name, Rate(0.001, 20))]) for _ in range(200)))
    assert sum(not one.wait for one in taken) == 20


async def test_replicas_share_their_buckets(valkey_url: str, name: str) -> None:
    async with open_redis(valkey_url) as one, open_redis(valkey_url) as other:
        replicas = (RedisBuckets(one), RedisBuckets(other))
        taken = await asyncio.gather(*(replicas[n % 2].take([bucket(name)]) for n in range(10)))
    assert sum(not one.wait for one in taken) == 3


async def test_a_bucket_that_is_full_again_is_forgotten(valkey_url: str, name: str) -> None:
    async with open_redis(valkey_url) as redis:
        await RedisBuckets(redis).take([bucket(name, Rate(1000, 10))])
        assert 0 < await redis.pttl(f"limit:{{{name}}}") <= 1010


async def test_without_redis_each_process_limits_by_itself_at_once(tmp_path: Path, name: str) -> None:
    clock = FakeClock()
    port = free_port()
    async with open_redis(f"redis://127.0.0.1:{port}/0") as redis:
        buckets = FallbackBuckets(RedisBuckets(redis), LocalBuckets(clock), clock)
        started = time.monotonic()
        taken = [await buckets.take([bucket(name)]) for _ in range(50)]
        assert sum(not one.wait for one in taken) == 3
        assert time.monotonic() - started < 1
        with running_valkey(tmp_path, port):
            clock.advance(timedelta(seconds=1))
            assert not (await buckets.take([bucket(name)])).wait
            assert await redis.exists(f"limit:{{{name}}}")


async def test_a_restarted_redis_has_the_script_again(tmp_path: Path, name: str) -> None:
    with running_valkey(tmp_path, free_port()) as url:
        async with open_redis(url) as redis:
            clock = SystemClock()
            buckets = FallbackBuckets(RedisBuckets(redis), LocalBuckets(clock), clock)
            await buckets.take([bucket(name)])
            await Redis.script_flush(redis)
            await buckets.take([bucket(name)])
            await asyncio.sleep(1.05)
            await buckets.take([bucket(name)])
            assert int((await redis.hget(f"limit:{{{name}}}", "level")).split(b".")[0]) == 1


class Counted:
    """Shared buckets that count what is asked of them."""

    def __init__(self, shared: Buckets) -> None:
        self._shared = shared
        self.asked = 0

    async def take(self, buckets: Sequence[Bucket], *, owe: bool = False) -> Taken:
        self.asked += 1
        return await self._shared.take(buckets, owe=owe)


async def test_a_caller_that_comes_often_is_limited_without_asking(name: str) -> None:
    counted = Counted(LocalBuckets(FakeClock()))
    leased = LeasedBuckets(counted, FakeClock())
    rates = [bucket(f"{name}:{number}", Rate(0.001, 2_000)) for number in range(3)]
    taken = []
    for _ in range(200):
        taken.append(await leased.take(rates))
        await asyncio.sleep(0)
    assert not any(one.wait for one in taken)
    assert [one.tightest.left for one in taken[-3:]] == [1802, 1801, 1800]
    assert counted.asked < 50


async def test_who_comes_seldom_and_what_is_small_takes_nothing_ahead(name: str) -> None:
    clock, shared = FakeClock(), LocalBuckets(FakeClock())
    leased = LeasedBuckets(shared, clock)
    for rate, pause in ((Rate(0.001, 2_000), 2), (Rate(0.001, 300), 0)):
        one = bucket(f"{name}:{rate.burst}", rate)
        for _ in range(10):
            await leased.take([one])
            await asyncio.sleep(0)
            clock.advance(timedelta(seconds=pause))
        assert (await shared.take([one])).tightest.left == rate.burst - 11


async def test_what_was_taken_ahead_is_soon_forgotten(name: str) -> None:
    clock, counted = FakeClock(), Counted(LocalBuckets(FakeClock()))
    leased, one = LeasedBuckets(counted, clock), bucket(name, Rate(0.001, 2_000))
    for _ in range(4):
        await leased.take([one])
        await asyncio.sleep(0)
    before = counted.asked
    clock.advance(timedelta(seconds=1))
    await leased.take([one])
    assert counted.asked == before + 1


async def test_replicas_that_take_ahead_never_let_more_through(valkey_url: str, name: str) -> None:
    one = bucket(name, Rate(0.001, 800))
    async with open_redis(valkey_url) as here, open_redis(valkey_url) as there:
        replicas = [LeasedBuckets(RedisBuckets(redis), SystemClock()) for redis in (here, there)]
        through = 0
        for _ in range(120):
            taken = await asyncio.gather(*(replicas[number % 2].take([one]) for number in range(10)))
            through += sum(not each.wait for each in taken)
    assert 800 - 2 * 8 <= through <= 800
