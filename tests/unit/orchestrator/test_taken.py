"""A replica with room drives what it accepts at once; one that is busy, or where others wait, leaves it to be claimed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from agentnet.orchestrator.v1 import session_pb2
from services.orchestrator.drivers.postgres import PostgresDriver
from tests.support.graphs import node
from tests.support.orchestrator import TENANT, TTL, World

NEVER = timedelta(hours=1)


@asynccontextmanager
async def replica(world: World, *, limit: int = 9) -> AsyncIterator[PostgresDriver]:
    """Hears of nothing and looks by itself once."""
    driver = PostgresDriver(world.leases, world.runs(), "one", TTL, NEVER, limit)
    world.store.driven_by(driver)
    claiming = asyncio.create_task(driver.claim())
    await settled()
    try:
        yield driver
    finally:
        claiming.cancel()
        await asyncio.gather(claiming, return_exceptions=True)
        await driver.drain()


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def ended(world: World, session_id: str) -> bool:
    async with asyncio.timeout(10):
        while (await world.find(session_id)).status != session_pb2.SESSION_STATUS_COMPLETED:
            await asyncio.sleep(0)
    return True


async def test_what_is_accepted_is_driven_without_being_claimed_and_without_reading_its_log() -> None:
    world = World()
    async with replica(world):
        read, world.store.read = world.store.read, None  # type: ignore[method-assign, assignment] # nobody may
        kept = await world.execute(node("a"), node("b", "a"))
        session_id = await world.start(max_rounds=1)
        assert await ended(world, kept.session.id)
        assert await ended(world, session_id)
        world.store.read = read  # type: ignore[method-assign] # as it was
    assert world.leases._rows[TENANT, kept.session.id].fence == 1
    assert (await world.store.check_chain(TENANT, kept.session.id)).intact


async def test_a_signal_that_comes_at_once_is_heard() -> None:
    world = World()
    world.inference.held_at = 2
    async with replica(world) as driver:
        world.leases.hear.append(driver.wake)
        kept = await world.execute(node("a"), node("b", "a"))
        await world.signal(kept.session.id, "cancel")
        async with asyncio.timeout(10):
            while (await world.find(kept.session.id)).status != session_pb2.SESSION_STATUS_CANCELLED:
                await asyncio.sleep(0)


async def test_nothing_is_taken_while_others_wait_nor_beyond_the_limit() -> None:
    world = World()
    world.inference.held_at = 2
    for _ in range(3):
        await world.execute(node("a"))
    async with replica(world, limit=2) as driver:
        assert len(driver.driven()) == 2
        await world.execute(node("a"))
        assert len(driver.driven()) == 2
        assert driver.reserve(5) == 0
        world.inference.release()


async def test_more_than_there_is_room_for_is_taken_in_part() -> None:
    async with replica(World(), limit=3) as driver:
        assert (driver.reserve(5), driver.reserve(5)) == (3, 0)
        driver.taken([], reserved=3)
        assert driver.reserve(1) == 1
        driver.taken([], reserved=1)


async def test_what_is_accepted_while_its_replica_stops_is_given_back() -> None:
    world = World()
    world.inference.held_at = 2
    async with replica(world) as driver:
        assert driver.reserve(1) == 1
        draining = asyncio.create_task(driver.drain())
        await settled()
        kept = await world.execute(node("a"))
        driver.taken([await world.claim("one")], reserved=1)
        await draining
    (claimed,) = await world.leases.claim("two", ttl=TTL, limit=1)
    assert (claimed.session_id, claimed.takeovers) == (kept.session.id, 0)
