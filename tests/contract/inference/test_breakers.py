"""What breakers promise, alone or shared through a real Valkey."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from services.inference.breakers import BreakerLimits, Breakers, BreakerState, LocalBreakers, RedisBreakers
from shared.clock import SystemClock
from shared.redis import open_redis
from tests.support.valkey import valkey_url

__all__ = ("valkey_url",)

LIMITS = BreakerLimits(failures=3, window=timedelta(seconds=5), cooldown=timedelta(milliseconds=150))
Make = Callable[[], Breakers]


@pytest.fixture
async def redis(valkey_url: str) -> AsyncIterator[Redis]:
    async with open_redis(valkey_url) as client:
        await client.flushall()
        yield client


@pytest.fixture(params=["local", "redis"])
def breakers(request: pytest.FixtureRequest, redis: Redis) -> Breakers:
    if request.param == "local":
        return LocalBreakers(SystemClock(), LIMITS)
    return RedisBreakers(redis, clock=SystemClock(), limits=LIMITS)


async def fail(breakers: Breakers, times: int) -> None:
    for _ in range(times):
        await breakers.failed("openai")


async def cooled() -> None:
    await asyncio.sleep(LIMITS.cooldown.total_seconds() + 0.05)


async def test_it_is_closed_at_first(breakers: Breakers) -> None:
    assert await breakers.admits("openai")
    assert await breakers.state("openai") is BreakerState.CLOSED


async def test_it_opens_after_failures_in_a_row(breakers: Breakers) -> None:
    await fail(breakers, 2)
    assert await breakers.admits("openai")
    await fail(breakers, 1)
    assert not await breakers.admits("openai")
    assert await breakers.state("openai") is BreakerState.OPEN


async def test_a_success_between_failures_starts_the_count_anew(breakers: Breakers) -> None:
    await fail(breakers, 2)
    await breakers.succeeded("openai")
    await fail(breakers, 2)
    assert await breakers.admits("openai")


async def test_a_provider_s_failures_are_its_own(breakers: Breakers) -> None:
    await fail(breakers, 3)
    assert await breakers.admits("anthropic")


async def test_after_the_cooldown_one_call_may_try(breakers: Breakers) -> None:
    await fail(breakers, 3)
    await cooled()
    assert await breakers.state("openai") is BreakerState.HALF_OPEN
    assert [await breakers.admits("openai") for _ in range(3)] == [True, False, False]


async def test_a_trial_that_succeeds_closes_it(breakers: Breakers) -> None:
    await fail(breakers, 3)
    await cooled()
    await breakers.admits("openai")
    await breakers.succeeded("openai")
    assert await breakers.state("openai") is BreakerState.CLOSED
    assert all([await breakers.admits("openai") for _ in range(3)])


async def test_a_trial_that_fails_opens_it_again(breakers: Breakers) -> None:
    await fail(breakers, 3)
    await cooled()
    await breakers.admits("openai")
    await fail(breakers, 1)
    assert await breakers.state("openai") is BreakerState.OPEN
    await cooled()
    assert await breakers.admits("openai")


async def test_a_trial_that_never_reports_does_not_hold_others_for_ever(breakers: Breakers) -> None:
    await fail(breakers, 3)
    await cooled()
    await breakers.admits("openai")
    await cooled()
    assert await breakers.admits("openai")


async def test_replicas_learn_from_one_another(redis: Redis) -> None:
    one, other = (RedisBreakers(redis, clock=SystemClock(), limits=LIMITS) for _ in range(2))
    await fail(one, 3)
    await other.look(["openai"])
    assert not await other.admits("openai")
    await cooled()
    assert [await one.admits("openai"), await other.admits("openai")] == [True, False]
    await one.succeeded("openai")
    assert await other.admits("openai")


async def test_without_redis_a_replica_counts_for_itself() -> None:
    alone = RedisBreakers(
        Redis(host="127.0.0.1", port=1, retry=Retry(NoBackoff(), 0)), clock=SystemClock(), limits=LIMITS
    )
    await fail(alone, 3)
    assert not await alone.admits("openai")
    assert await alone.state("openai") is BreakerState.OPEN
    await cooled()
    assert await alone.admits("openai")
    await alone.succeeded("openai")
    assert await alone.state("openai") is BreakerState.CLOSED
