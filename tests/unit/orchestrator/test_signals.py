"""Signals: advance, pause, resume, cancel, once each, whenever they come."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from agentnet.orchestrator.v1 import session_pb2
from services.orchestrator.errors import SessionEnded, SessionStateInvalid
from services.orchestrator.store import Entry, Lease, Signal
from services.orchestrator.store_memory import MemorySessionStore
from shared.errors import FailedPrecondition, MeshError, Reason
from shared.paging import Page
from tests.support.orchestrator import ADA, TENANT, TTL, Watching, World


@pytest.fixture
def world() -> World:
    return World()


class SignalledLate(MemorySessionStore):
    """A store where a caller advances the session between the driver's decision to wait and its commit."""

    async def append(self, lease: Lease, entries: Sequence[Entry], *, release: bool = False, **given: Any) -> None:
        if release:
            late = Signal("sig_late", "advance", "ada")
            await self.signal(lease.tenant, lease.session_id, late, request_id="late")
        await super().append(lease, entries, release=release, **given)


def unapproved() -> MeshError:
    reason = Reason.ERROR_REASON_BUDGET_APPROVAL_REQUIRED
    return FailedPrecondition(
        "the budget's soft limit is passed; approve it to go on", reason=reason, budget_id="bud_1"
    )


async def test_a_session_advances_by_hand(world: World) -> None:
    session_id = await world.start(max_rounds=2, manual_advance=True)

    await world.drive()
    waiting = await world.find(session_id)
    await world.signal(session_id, "advance")
    await world.drive()

    assert (waiting.status, waiting.rounds_executed) == (session_pb2.SESSION_STATUS_WAITING, 1)
    assert (await world.find(session_id)).rounds_executed == 2
    assert "session_waiting" in await world.kinds(session_id)


async def test_a_waiting_session_is_nobodys_to_claim(world: World) -> None:
    await world.start(max_rounds=2, manual_advance=True)

    await world.drive()

    assert await world.leases.claim("two", ttl=TTL, limit=9) == []


async def test_a_paused_session_goes_on_where_it_was(world: World) -> None:
    session_id = await world.start(max_rounds=1)
    await world.signal(session_id, "pause")

    await world.drive()
    paused = await world.find(session_id)
    await world.signal(session_id, "resume")
    await world.drive()

    assert paused.status == session_pb2.SESSION_STATUS_PAUSED
    assert len(world.inference.started) == 2
    assert (await world.find(session_id)).status == session_pb2.SESSION_STATUS_COMPLETED


async def test_a_budget_that_asks_pauses_the_session_until_it_is_resumed(world: World) -> None:
    world.inference.refusals = [unapproved(), unapproved()]
    session_id = await world.start(max_rounds=1)

    await world.drive()
    paused = await world.find(session_id)
    assert await world.leases.claim("two", ttl=TTL, limit=9) == []
    await world.signal(session_id, "resume")
    await world.drive()
    paused_again = await world.find(session_id)
    await world.signal(session_id, "resume")
    await world.drive()

    assert paused.status == paused_again.status == session_pb2.SESSION_STATUS_PAUSED
    assert (await world.find(session_id)).status == session_pb2.SESSION_STATUS_COMPLETED
    assert len(world.inference.started) == 2
    turns = await world.store.turns(TENANT, session_id, agent="", round_number=0, page=Page())
    assert [turn.attempt for turn in turns] == [3, 1]


async def test_who_waits_for_one_turn_is_told_that_the_budget_asks(world: World) -> None:
    world.inference.refusals = [unapproved()]
    asked = session_pb2.Session(
        topic_start="Zero-loss failover", agents=["Athena"], mode="single", strategy="round_robin", max_rounds=1
    )
    patience = timedelta(seconds=5)
    waiting = asyncio.create_task(world.sessions.run_single(ADA, asked, request_id=None, patience=patience))
    await asyncio.sleep(0.05)
    await world.drive()
    with pytest.raises(MeshError) as raised:
        await waiting
    assert raised.value.reason == Reason.ERROR_REASON_BUDGET_APPROVAL_REQUIRED
    assert raised.value.facts["budget_id"] == "bud_1"
    assert raised.value.facts["session_id"]


async def test_a_pause_that_has_not_taken_effect_can_be_taken_back(world: World) -> None:
    session_id = await world.start(max_rounds=1)

    await world.signal(session_id, "pause")
    await world.signal(session_id, "resume")
    await world.drive()

    assert (await world.find(session_id)).status == session_pb2.SESSION_STATUS_COMPLETED


async def test_a_session_that_is_not_paused_cannot_be_resumed(world: World) -> None:
    session_id = await world.start()

    with pytest.raises(SessionStateInvalid) as raised:
        await world.signal(session_id, "resume")

    assert raised.value.facts["status"] == "PENDING"


async def test_only_a_manual_session_can_be_advanced(world: World) -> None:
    session_id = await world.start()

    with pytest.raises(SessionStateInvalid):
        await world.signal(session_id, "advance")


async def test_a_cancelled_session_calls_its_generation_off_and_ends(world: World) -> None:
    world.inference.held_at = 3
    session_id = await world.start()
    signalled = asyncio.Event()
    task = asyncio.create_task(world.driver().drive(await world.claim(), signalled))
    watching = Watching(world, session_id)
    await watching.until(3)

    await world.signal(session_id, "cancel")
    signalled.set()
    await asyncio.wait_for(task, 5)

    session = await world.find(session_id)
    assert (session.status, session.stop_reason) == (
        session_pb2.SESSION_STATUS_CANCELLED,
        session_pb2.STOP_REASON_CANCELLED,
    )
    assert world.inference.cancelled == [f"{(await world.log(session_id))[1].turn_started.turn_id}-1"]
    assert await watching.end() == [event.SerializeToString() for event in await world.log(session_id)]


async def test_a_signal_of_one_request_acts_once(world: World) -> None:
    session_id = await world.start(max_rounds=3, manual_advance=True)
    await world.drive()

    for _ in range(2):
        await world.sessions.signal(ADA, session_id, "advance", request_id="req_1")
    await world.drive()

    assert (await world.find(session_id)).rounds_executed == 2


async def test_a_repeated_cancel_is_answered_after_the_end_too(world: World) -> None:
    session_id = await world.start()
    await world.sessions.signal(ADA, session_id, "cancel", request_id="req_1")
    await world.drive()

    again = await world.sessions.signal(ADA, session_id, "cancel", request_id="req_1")

    assert again.status == session_pb2.SESSION_STATUS_CANCELLED


async def test_an_ended_session_takes_no_signal(world: World) -> None:
    session_id = await world.start(max_rounds=1)
    await world.drive()

    with pytest.raises(SessionEnded):
        await world.signal(session_id, "pause")


async def test_a_signal_that_came_while_the_session_went_to_wait_is_not_missed(world: World) -> None:
    world.store = SignalledLate(world.leases)
    session_id = await world.start(max_rounds=2, manual_advance=True)

    await world.drive()
    await world.drive()

    assert (await world.find(session_id)).rounds_executed == 2
