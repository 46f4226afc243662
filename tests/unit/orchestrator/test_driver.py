"""A replica: claims what is ready, gives back what it holds, and never keeps what it cannot drive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from agentnet.orchestrator.v1 import event_pb2, session_pb2
from services.orchestrator.drivers.postgres import PostgresDriver, draining
from services.orchestrator.drivers.runs import drive_on
from services.orchestrator.errors import LeaseLost
from services.orchestrator.leases_memory import MemoryLeaseStore
from services.orchestrator.leases_postgres import Renewal
from services.orchestrator.plan import Begin, Wait, next_step
from services.orchestrator.record import SessionLog
from services.orchestrator.store import Lease
from shared.errors import MeshError, Unavailable
from tests.support.orchestrator import POLL, TTL, ScriptedMemory, Watching, World


class Stalled(Renewal):
    """A renewal that has not worked for a while."""

    def __init__(self) -> None:
        super().__init__("nowhere", "one", ttl=TTL, driven=list)

    @property
    def age(self) -> timedelta:
        return TTL


@asynccontextmanager
async def replica(world: World, *, owner: str = "one", limit: int = 9) -> AsyncIterator[PostgresDriver]:
    """A driver that claims, heard by the store's wake-ups."""
    driver = PostgresDriver(world.leases, world.driver(), owner, TTL, POLL, limit)
    world.leases.hear.append(driver.wake)
    async with draining(driver):
        claiming = asyncio.create_task(driver.claim())
        try:
            yield driver
        finally:
            claiming.cancel()
            await asyncio.gather(claiming, return_exceptions=True)


async def until_ended(world: World, *session_ids: str) -> list[session_pb2.Session]:
    for session_id in session_ids:
        await Watching(world, session_id).end()
    return [await world.find(session_id) for session_id in session_ids]


async def test_it_runs_what_is_started_and_what_is_signalled() -> None:
    world = World()
    async with replica(world):
        session_id = await world.start(max_rounds=2, manual_advance=True)
        watching = Watching(world, session_id)
        while (await world.find(session_id)).status != session_pb2.SESSION_STATUS_WAITING:
            await asyncio.sleep(0)
        await world.signal(session_id, "advance")
        await watching.end()
    assert (await world.find(session_id)).rounds_executed == 2


async def test_it_drives_no_more_than_its_limit_and_all_of_them_in_time() -> None:
    world = World()
    async with replica(world, limit=2) as driver:
        session_ids = [await world.start(max_rounds=1) for _ in range(5)]
        most = 0
        ended = asyncio.create_task(until_ended(world, *session_ids))
        while not ended.done():
            most = max(most, len(driver.driven()))
            await asyncio.sleep(0)
    assert most == 2
    assert {session.status for session in await ended} == {session_pb2.SESSION_STATUS_COMPLETED}


async def test_a_cancel_reaches_a_turn_in_flight_by_the_wake_up() -> None:
    world = World()
    world.inference.held_at = 3
    async with replica(world):
        session_id = await world.start()
        watching = Watching(world, session_id)
        await watching.until(3)
        await world.signal(session_id, "cancel")
        await watching.end()
    assert (await world.find(session_id)).stop_reason == session_pb2.STOP_REASON_CANCELLED


async def test_a_cancel_that_nobody_heard_reaches_a_turn_when_the_replica_listens_again() -> None:
    world = World()
    world.inference.held_at = 3
    async with replica(world) as driver:
        session_id = await world.start()
        watching = Watching(world, session_id)
        await watching.until(3)
        world.leases.hear.clear()
        await world.signal(session_id, "cancel")
        driver.wake_all()
        async with asyncio.timeout(2):
            await watching.end()
    assert (await world.find(session_id)).stop_reason == session_pb2.STOP_REASON_CANCELLED


async def test_draining_frees_a_session_at_once_and_another_replica_goes_on() -> None:
    world = World()
    world.inference.held_at = 4
    session_id = await world.start()
    watching = Watching(world, session_id)
    async with replica(world, owner="one"):
        await watching.until(3)

    async with replica(world, owner="two"):
        world.inference.release()
        await watching.end()

    assert "session_taken_over" not in await world.kinds(session_id)
    assert len({utterance.generation_id for utterance in world.inference.started}) == len(world.inference.started)


async def test_a_replica_that_cannot_renew_stops_itself() -> None:
    world = World()
    world.inference.held_at = 4
    session_id = await world.start()
    async with replica(world) as driver:
        await Watching(world, session_id).until(3)
        guarding = asyncio.create_task(driver.guard(Stalled()))
        free = asyncio.Event()
        world.leases.hear.append(lambda _: free.set())
        await asyncio.wait_for(free.wait(), 5)
        guarding.cancel()
        await asyncio.gather(guarding, return_exceptions=True)


async def test_a_session_whose_store_fails_is_no_longer_held() -> None:
    world = World()
    away, lost = Unavailable("the database does not answer"), LeaseLost("it is another's", session_id="ses_1")
    for error in (away, lost, RuntimeError("a fault")):
        world.inference.refusals = [error] if isinstance(error, MeshError) else []
        driver = PostgresDriver(world.leases, Failing(error), "one", TTL, POLL, 9)  # type: ignore[arg-type] # drives
        await world.start()
        async with draining(driver):
            claiming = asyncio.create_task(driver.claim())
            while not await _expired_when_renewed(world, driver):
                await asyncio.sleep(0)
            claiming.cancel()
            await asyncio.gather(claiming, return_exceptions=True)


class Failing:
    """A session driver that fails at once."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.drove = 0

    async def drive(self, _lease: object, _signalled: asyncio.Event) -> None:
        self.drove += 1
        raise self.error


async def _expired_when_renewed(world: World, driver: PostgresDriver) -> bool:
    """Whether the session can be claimed by another one a lease's time later, with renewals going on."""
    if not isinstance(driver.runs, Failing) or not driver.runs.drove:
        return False
    for _ in range(3):
        world.leases.renew("one", TTL, driver.driven())
        world.clock.advance(TTL / 2)
    return bool(await world.leases.claim("two", ttl=TTL, limit=1))


class Late(MemoryLeaseStore):
    """Has claimed long before it answers."""

    def __init__(self, world: World) -> None:
        super().__init__(world.clock)
        self.__dict__.update(world.leases.__dict__)
        self.claimed, self.answer = asyncio.Event(), asyncio.Event()

    async def claim(self, owner: str, *, ttl: timedelta, limit: int) -> Sequence[Lease]:
        leases = await super().claim(owner, ttl=ttl, limit=limit)
        self.claimed.set()
        await self.answer.wait()
        return leases


@pytest.mark.parametrize("fault", [False, True])
async def test_what_is_claimed_while_a_replica_stops_is_free_at_once(fault: bool) -> None:
    world = World()
    await world.start()
    leases = Late(world)
    driver = PostgresDriver(leases, world.driver(), "one", TTL, POLL, 9)
    async with draining(driver):
        claiming = asyncio.create_task(driver.claim())
        await leases.claimed.wait()
        claiming.cancel()
        await asyncio.gather(claiming, return_exceptions=True)
        if fault:
            driver._claiming.cancel()  # type: ignore[union-attr] # it is under way
        leases.answer.set()
    assert len(await world.leases.claim("two", ttl=TTL, limit=1)) == (not fault)


async def test_who_drives_what_has_ended_does_nothing() -> None:
    world = World()
    session_id = await world.start(max_rounds=1)
    lease = await world.claim()
    driver = world.driver()
    await driver.drive(lease, asyncio.Event())
    before = await world.kinds(session_id)
    drive = await driver.open(lease, asyncio.Event())
    assert (await drive.go(), drive.finished) == (True, True)
    assert await world.kinds(session_id) == before


async def test_what_a_waiting_turn_could_not_log_ends_the_drive() -> None:
    world = World()
    await world.start()
    drive: Any = await world.driver().open(await world.claim(), asyncio.Event())

    async def lost() -> None:
        raise LeaseLost("another replica drives the session", session_id="ses_1")

    drive.working = {"trn_1": asyncio.create_task(lost())}
    with pytest.raises(LeaseLost):
        await drive._take(Wait(session_pb2.SESSION_STATUS_WAITING))


class GoingOn(SessionLog):
    """A log in which others write once before each step: what was decided on is void then."""

    asked = 0

    async def went_on(self) -> bool:
        self.asked += 1
        return self.asked % 2 == 1


async def test_a_step_is_decided_anew_when_the_log_went_on_before_it_was_taken() -> None:
    world = World()
    session_id = await world.start(max_rounds=1)
    drive: Any = await replace(world.driver(), opened=GoingOn).open(await world.claim(), asyncio.Event())
    await drive_on(drive)
    assert (await world.find(session_id)).status == session_pb2.SESSION_STATUS_COMPLETED
    assert (await world.kinds(session_id)).count("turn_started") == 2
    assert drive.record.asked % 2 == 0


async def test_a_turn_is_decided_anew_when_the_log_went_on_while_its_prompt_was_made() -> None:
    world = World()
    session_id = await world.start()
    drive: Any = await world.driver().open(await world.claim(), asyncio.Event())

    class Paused(ScriptedMemory):
        async def recall(self, *args: Any, **given: Any) -> Any:
            paused = event_pb2.SignalReceived(signal="pause", signal_id="sig_1")
            drive.record.stage([event_pb2.SessionEvent(signal_received=paused)])
            return await super().recall(*args, **given)

    drive.driver = replace(drive.driver, turns=replace(drive.driver.turns, memory=Paused()))
    while not isinstance(step := next_step(drive.record.state, max_takeovers=5), Begin):
        await drive._take(step)
    await drive._take(step)
    await drive.record.commit()
    assert (await world.kinds(session_id))[-1] == "signal_received"
    assert not world.inference.started
