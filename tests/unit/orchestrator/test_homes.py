"""Temporal's activities and its driver without a server: what a home answers when it lost a run, is full, or stops."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import ActivityEnvironment

from services.orchestrator.drivers.homes import Homes
from services.orchestrator.drivers.temporal import TemporalDriver, _Shift
from services.orchestrator.drivers.workflow import NOT_HELD, Asked, Run
from services.orchestrator.store import Lease
from tests.support.graphs import node
from tests.support.orchestrator import POLL, TENANT, TTL, World


def home(world: World, *, runs: Any = None) -> Homes:
    return Homes(world.leases, runs or world.runs(), "one", "q/one", TTL, 9)


async def taken(world: World, homes: Homes) -> Asked:
    kept = await world.execute(node("a"), node("b", "a"))
    run = Run(TENANT, kept.session.id)
    found = await ActivityEnvironment().run(homes.take, run)
    return Asked(run, found.fence)


async def free(world: World) -> bool:
    return bool(await world.leases.claim("two", ttl=TTL, limit=1))


async def test_a_run_that_has_ended_finds_no_home() -> None:
    world = World()
    kept = await world.execute(node("a"))
    await world.drive()
    assert await ActivityEnvironment().run(home(world).take, Run(TENANT, kept.session.id)) is None


async def test_a_home_whose_lease_went_to_another_has_the_run_no_more() -> None:
    world = World()
    homes = home(world)
    asked = await taken(world, homes)
    world.clock.advance(TTL * 2)
    await world.claim("two")
    with pytest.raises(ApplicationError) as raised:
        await ActivityEnvironment().run(homes.go, asked)
    assert (raised.value.type, homes.driven()) == (NOT_HELD, [])


async def test_a_run_that_no_workflow_asks_about_is_seen_to_and_given_back_only_when_that_was_often_in_vain() -> None:
    world = World()
    homes = home(world)
    asked = await taken(world, homes)
    assert await homes.sweep() == []
    seen_to = []
    for _ in range(11):
        assert homes.driven() == [asked.run.session_id]
        homes._held[asked.run.session_id].asked_at = float("-inf")
        seen_to += await homes.sweep()
        assert await homes.sweep() == [], "once in a while is enough"
    assert seen_to == [asked.run] * 10
    assert homes.driven() == []
    assert await free(world)


async def test_a_slow_workflow_that_asks_at_last_was_never_forsaken() -> None:
    world = World()
    homes = home(world)
    asked = await taken(world, homes)
    homes._held[asked.run.session_id].asked_at = float("-inf")
    assert await homes.sweep() == [asked.run]
    await ActivityEnvironment().run(homes.go, asked)
    assert homes._held[asked.run.session_id].seen_to == 0
    await homes.stop()


class Slow:
    """Opens a run when it is told to."""

    def __init__(self, world: World) -> None:
        self.world, self.opening, self.may = world, asyncio.Event(), asyncio.Event()

    async def open(self, lease: Lease, signalled: asyncio.Event) -> Any:
        self.opening.set()
        await self.may.wait()
        return await self.world.runs().open(lease, signalled)


async def test_what_is_taken_while_a_replica_stops_is_free_at_once() -> None:
    world = World()
    slow = Slow(world)
    homes = home(world, runs=slow)
    taking = asyncio.create_task(taken(world, homes))
    await slow.opening.wait()
    homes.closing = True
    await homes.stop()
    slow.may.set()
    with pytest.raises(ApplicationError, match="stops"):
        await taking
    assert homes.driven() == []
    assert await free(world)


async def test_what_an_activity_began_may_itself_be_called_off() -> None:
    world = World()
    slow = Slow(world)
    homes = home(world, runs=slow)
    taking = asyncio.create_task(taken(world, homes))
    await slow.opening.wait()
    (begun,) = homes._doing
    begun.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert not homes._doing


class Client:
    """Temporal as its driver sees it, with what it answers in turn."""

    def __init__(self, *answers: RPCStatusCode | None) -> None:
        self.answers = list(answers)
        self.started: list[str] = []

    async def start_workflow(self, _workflow: Any, _given: Any, **named: Any) -> None:
        if (status := self.answers.pop(0)) is not None:
            raise RPCError("no", status, b"")
        self.started.append(named["id"])


def driver(world: World, homes: Homes, client: Client) -> TemporalDriver:
    found: Any = client
    return TemporalDriver(found, world.leases, homes, "q", timedelta(milliseconds=1), 8_000)


async def test_a_temporal_that_is_away_is_asked_until_it_answers() -> None:
    world = World()
    kept = await world.execute(node("a"))
    client = Client(RPCStatusCode.UNAVAILABLE, RPCStatusCode.RESOURCE_EXHAUSTED, None)
    dispatching = asyncio.create_task(driver(world, home(world), client).dispatch())
    async with asyncio.timeout(10):
        while not client.started:
            await asyncio.sleep(0.001)
    dispatching.cancel()
    await asyncio.gather(dispatching, return_exceptions=True)
    assert client.started == [f"q/{TENANT}/{kept.session.id}"]


async def test_what_temporal_refuses_for_good_is_no_reason_to_wait() -> None:
    world = World()
    await world.execute(node("a"))
    with pytest.raises(RPCError):
        await driver(world, home(world), Client(RPCStatusCode.INVALID_ARGUMENT)).dispatch()


async def test_who_listens_again_has_every_workflow_at_home_here_look() -> None:
    world = World()
    homes = home(world)
    asked = await taken(world, homes)
    client = Client(None)
    driving = driver(world, homes, client)
    driving.wake_all()
    dispatching = asyncio.create_task(driving.dispatch())
    async with asyncio.timeout(10):
        while not client.started:
            await asyncio.sleep(0.001)
    dispatching.cancel()
    await asyncio.gather(dispatching, return_exceptions=True)
    assert client.started == [f"q/{TENANT}/{asked.run.session_id}"]
    await homes.stop()


async def test_a_shift_that_never_began_ends_at_once() -> None:
    shift = _Shift()
    await asyncio.wait_for(shift.end(), POLL.total_seconds() + 1)
    assert shift.over.is_set()
