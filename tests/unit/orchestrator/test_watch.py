"""Watching: from any place, in order, to the end, and never beyond it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from datetime import timedelta

import pytest

from services.orchestrator.errors import SequenceOutOfRange, SessionNotFound
from services.orchestrator.store import Entry
from services.orchestrator.watch import Watcher
from tests.support.orchestrator import TENANT, TTL, Watching, World, driving

SOON = timedelta(milliseconds=1)


async def test_every_reader_gets_the_same_bytes_from_any_place() -> None:
    world = World()
    session_id = await world.start()
    live = Watching(world, session_id)
    await world.drive()
    whole = await live.end()

    for after in range(len(whole) + 1):
        assert await Watching(world, session_id, after=after).end() == whole[after:]


async def test_a_reader_joins_in_the_middle_of_a_turn() -> None:
    world = World()
    world.inference.held_at = 5
    session_id = await world.start()
    async with driving(world, "one") as task:
        first = Watching(world, session_id)
        await first.until(4)
        second = Watching(world, session_id, after=3)
        await second.until(1)
        world.inference.release()
        await asyncio.wait_for(task, 5)

    assert (await first.end())[3:] == await second.end()


async def test_a_reader_that_never_reads_holds_nobody_up() -> None:
    world = World()
    session_id = await world.start()
    async with aclosing(world.sessions.watch(TENANT, session_id, after=0)) as stuck:
        await anext(stuck)
        await asyncio.wait_for(world.drive(), 5)


async def test_an_idle_watch_beats() -> None:
    world = World()
    session_id = await world.start()
    async with aclosing(world.watcher.watch(TENANT, session_id, after=1, heartbeat=SOON)) as entries:
        assert await asyncio.wait_for(anext(entries), 2) is None


async def test_nobody_watches_what_is_not_there() -> None:
    world = World()
    session_id = await world.start()
    for tenant, wanted in ((TENANT, "ses_none"), ("other", session_id)):
        with pytest.raises(SessionNotFound):
            await anext(world.watcher.watch(tenant, wanted, after=0, heartbeat=SOON))


async def test_a_place_beyond_the_end_is_out_of_range() -> None:
    world = World()
    session_id = await world.start()
    with pytest.raises(SequenceOutOfRange) as raised:
        await anext(world.watcher.watch(TENANT, session_id, after=2, heartbeat=SOON))
    assert (raised.value.field, raised.value.facts["last_sequence"]) == ("after_sequence", "1")


async def test_a_place_far_out_in_an_uncommitted_turn_is_in_range() -> None:
    world = World()
    session_id = await world.start()
    (lease,) = await world.leases.claim("one", ttl=TTL, limit=1)
    await world.tail.append(lease, [Entry(sequence, "", b"\x12\x00") for sequence in range(2, 1502)])
    async with aclosing(world.watcher.watch(TENANT, session_id, after=1500, heartbeat=SOON)) as entries:
        entry = await anext(entries)
    assert entry is not None
    assert entry.sequence == 1501


async def test_a_reader_of_a_live_turn_leaves_the_database_alone() -> None:
    world = World()
    session_id = await world.start()
    (lease,) = await world.leases.claim("one", ttl=TTL, limit=1)
    reads = 0
    read = world.store.read

    async def counted(tenant: str, session: str, after: int, *, limit: int) -> Sequence[Entry]:
        nonlocal reads
        reads += 1
        return await read(tenant, session, after, limit=limit)

    world.store.read = counted  # type: ignore[method-assign] # it only counts
    watcher = Watcher(world.store, world.tail, poll=timedelta(minutes=1))
    async with aclosing(watcher.watch(TENANT, session_id, after=1, heartbeat=timedelta(minutes=1))) as entries:
        for sequence in range(2, 52):
            waiting = asyncio.ensure_future(anext(entries))
            await asyncio.sleep(0.001)
            await world.tail.append(lease, [Entry(sequence, "", b"\x12\x00")])
            entry = await asyncio.wait_for(waiting, 1)
            assert entry is not None
            assert entry.sequence == sequence
    assert reads == 1  # before there was anything to follow
