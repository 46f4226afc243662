"""What is remembered of downgrades, and how soon another replica's orders are obeyed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from redis.asyncio import Redis

from services.inference.downgrades import Downgrade, Downgrades
from shared.tasks import stopped

CHEAPER = Downgrade("backup", "80 % of the budget is spent")
LONG = timedelta(minutes=1)


@asynccontextmanager
async def watching(redis: Redis) -> AsyncIterator[Downgrades]:
    downgrades = Downgrades(redis)
    await downgrades.look()
    task = asyncio.create_task(downgrades.watch())
    try:
        yield downgrades
    finally:
        await stopped(task)


async def commands(redis: Redis) -> int:
    return int((await redis.info("stats"))["total_commands_processed"])


async def test_what_is_known_costs_no_round_trip(redis: Redis) -> None:
    downgrades = Downgrades(redis)
    await downgrades.look()
    assert await downgrades.of("acme", "dear") is None
    before = await commands(redis)
    for _ in range(10):
        assert await downgrades.of("acme", "dear") is None
    assert await commands(redis) - before == 1  # the count itself


async def test_an_order_given_at_another_replica_is_obeyed_within_half_a_second(redis: Redis) -> None:
    async with watching(redis) as one, watching(redis) as other:
        assert await other.of("acme", "dear") is None
        await one.order("acme", "dear", CHEAPER, lasts=LONG)
        assert await one.of("acme", "dear") == CHEAPER
        async with asyncio.timeout(0.5):
            while await other.of("acme", "dear") != CHEAPER:
                await asyncio.sleep(0.01)
        await one.end("acme", "dear")
        assert await one.of("acme", "dear") is None
        async with asyncio.timeout(0.5):
            while await other.of("acme", "dear"):
                await asyncio.sleep(0.01)


async def test_an_order_that_is_known_ends_at_its_time(redis: Redis) -> None:
    downgrades = Downgrades(redis)
    await downgrades.look()
    await downgrades.order("acme", "dear", CHEAPER, lasts=timedelta(milliseconds=30))
    assert await downgrades.of("acme", "dear") == CHEAPER
    await asyncio.sleep(0.04)
    assert await downgrades.of("acme", "dear") is None


async def test_nothing_is_remembered_where_nobody_looks(redis: Redis) -> None:
    one, other = Downgrades(redis), Downgrades(redis)
    assert await one.of("acme", "dear") is None
    await other.order("acme", "dear", CHEAPER, lasts=LONG)
    assert await one.of("acme", "dear") == CHEAPER
