"""A replica dies at any moment: the next one goes on, no reader sees a gap, a duplicate or another text."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from agentnet.orchestrator.v1 import event_pb2, session_pb2, turn_pb2
from services.orchestrator.errors import LeaseLost
from services.orchestrator.record import SessionLog
from services.orchestrator.store import Entry, Lease
from services.orchestrator.store_memory import MemorySessionStore
from shared.clock import FakeClock
from shared.errors import Reason
from shared.paging import Page
from tests.support.mortal import Fate, Killed, Moment, MortalStore, MortalTail
from tests.support.orchestrator import TENANT, TTL, Watching, World, driving


async def run_until_killed(world: World, fate: Fate) -> bool:
    """Drives the ready session with a mortal driver; False when it lived to the end."""
    driver = world.driver(store=MortalStore(world.store, fate), tail=MortalTail(world.tail, fate))
    try:
        await driver.drive(await world.claim("one"), asyncio.Event())
    except Killed:
        return True
    return False


async def contents(world: World, session_id: str) -> list[tuple[int, str, str]]:
    turns = await world.store.turns(TENANT, session_id, agent="", round_number=0, page=Page(size=500))
    return [(turn.round, turn.agent, turn.content) for turn in turns]


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_death_at_any_write_changes_nothing_but_the_owner(moment: Moment) -> None:
    calm = World()
    calm_id = await calm.start(max_rounds=2)
    await calm.drive()
    expected = await contents(calm, calm_id)

    for at in range(1, 200):
        world = World()
        session_id = await world.start(max_rounds=2)
        watching = Watching(world, session_id)
        if not await run_until_killed(world, Fate(at, moment)):
            watching.stop()
            break
        if (await world.find(session_id)).status != session_pb2.SESSION_STATUS_COMPLETED:
            world.clock.advance(TTL * 2)
            await world.drive("two")

        stored = [event.SerializeToString() for event in await world.log(session_id)]
        assert await watching.end() == stored, f"died {moment} write {at}"
        assert [event.sequence for event in await world.log(session_id)] == list(range(1, len(stored) + 1))
        assert await contents(world, session_id) == expected
        started = [utterance.generation_id for utterance in world.inference.started]
        assert len(started) == len(set(started)), "a call was paid twice"
    else:
        pytest.fail("the session never lived to its end")
    assert at > 20


async def test_the_next_owner_goes_on_with_the_same_call() -> None:
    world = World()
    world.inference.held_at = 4
    session_id = await world.start(agents=["Athena"], mode="single", max_rounds=1)
    watching = Watching(world, session_id)
    async with driving(world, "one"):
        await watching.until(3)
    world.clock.advance(TTL * 2)

    world.inference.release()
    await world.drive("two")

    kinds = await world.kinds(session_id)
    assert "session_taken_over" in kinds
    assert kinds.count("turn_started") == len(world.inference.started) == 1
    assert await contents(world, session_id) == [(1, "Athena@1.0.0", "Athena has one idea about it.")]
    assert await watching.end() == [event.SerializeToString() for event in await world.log(session_id)]


async def test_a_turn_that_was_taken_over_keeps_its_start_and_its_context() -> None:
    world = World()
    world.inference.held_at = 4
    session_id = await world.start(agents=["Athena", "Apollo"], max_rounds=1)
    watching = Watching(world, session_id)
    async with driving(world, "one"):
        await watching.until(3)
    started_at = (await world.log(session_id))[1].time
    world.clock.advance(timedelta(minutes=1))

    world.inference.release()
    await world.drive("two")
    await watching.end()

    first, second = await world.store.turns(TENANT, session_id, agent="", round_number=0, page=Page())
    assert first.start_time == started_at
    assert list(second.context.short_term) == ["Athena: Athena has one idea about it."]


async def test_a_generation_that_died_with_its_owner_is_a_recorded_second_try() -> None:
    world = World()
    world.inference.held_at = 4
    session_id = await world.start(agents=["Athena"], mode="single", max_rounds=1)
    watching = Watching(world, session_id)
    async with driving(world, "one"):
        await watching.until(3)
    world.clock.advance(TTL * 2)

    world.inference.forget()
    await world.drive("two")

    events = await world.log(session_id)
    (broken,) = [event.turn_interrupted for event in events if event.HasField("turn_interrupted")]
    (turn,) = [event.turn_finished.turn for event in events if event.HasField("turn_finished")]
    assert (broken.attempt, broken.failure.reason) == (1, Reason.ERROR_REASON_GENERATION_LOST)
    assert (turn.attempt, turn.id, turn.content) == (2, broken.turn_id, "Athena has one idea about it.")


async def test_a_finished_turn_is_never_repeated() -> None:
    world = World()
    session_id = await world.start(max_rounds=1)
    with world.tail.woken(TENANT, session_id):
        assert await run_until_killed(world, Fate(at=8, moment="after"))
    assert len(await contents(world, session_id)) == 1
    world.clock.advance(TTL * 2)

    await world.drive("two")

    speakers = [utterance.agent.name for utterance in world.inference.started]
    assert speakers == ["Athena", "Apollo"]
    assert len(await contents(world, session_id)) == 2


async def test_the_old_owner_can_write_nothing_more() -> None:
    world = World()
    session_id = await world.start()
    old = SessionLog(await world.claim("one"), world.store, world.tail, world.clock)
    await old.load()
    world.clock.advance(TTL * 2)
    new = SessionLog(await world.claim("two"), world.store, world.tail, world.clock)
    await new.load()

    with pytest.raises(LeaseLost):
        await old.show([tokens("late")])
    with pytest.raises(LeaseLost):
        await old.commit([tokens("later")])

    assert [event.WhichOneof("payload") for event in await world.log(session_id)] == ["session_started"]
    assert await world.tail.read(TENANT, session_id, 0) == []


async def test_an_expired_lease_writes_nothing_even_when_nobody_took_it() -> None:
    world = World()
    await world.start()
    log = SessionLog(await world.claim("one"), world.store, world.tail, world.clock)
    await log.load()

    world.clock.advance(TTL)

    with pytest.raises(LeaseLost):
        await log.commit([tokens("late")])


async def test_what_lies_beyond_a_gap_in_the_tail_is_not_adopted() -> None:
    world = World()
    session_id = await world.start()
    lease = await world.claim("one")
    await world.tail.append(lease, [Entry(2, "", b"two"), Entry(4, "", b"stale")])
    world.clock.advance(TTL * 2)
    second = await world.claim("two")

    adopted = await world.tail.take_over(second, 1)
    await world.tail.append(second, [Entry(3, "", b"three"), Entry(4, "", b"four")])

    assert [entry.payload for entry in adopted] == [b"two"]
    assert [entry.payload for entry in await world.tail.read(TENANT, session_id, 1)] == [b"two", b"three", b"four"]


async def test_without_the_tail_the_turn_goes_on_and_readers_get_it_from_the_log() -> None:
    world = World()
    world.inference.held_at = 4
    session_id = await world.start(agents=["Athena"], mode="single", max_rounds=1)
    watching = Watching(world, session_id)
    async with driving(world, "one") as task:
        await watching.until(3)
        world.tail.flush()
        world.inference.release()
        await asyncio.wait_for(task, 5)

    assert await watching.end() == [event.SerializeToString() for event in await world.log(session_id)]
    assert await contents(world, session_id) == [(1, "Athena@1.0.0", "Athena has one idea about it.")]


async def test_a_session_that_kills_its_owners_is_set_aside() -> None:
    world = World()
    session_id = await world.start()
    for _ in range(6):
        await run_until_killed(world, Fate(at=2, moment="before"))
        world.clock.advance(TTL * 2)

    await world.drive("survivor")

    session = await world.find(session_id)
    assert session.stop_reason == session_pb2.STOP_REASON_POISONED
    assert session.failure.reason == Reason.ERROR_REASON_SESSION_POISONED


async def test_cancelling_a_driver_in_a_commit_leaves_no_gap() -> None:
    world = World()
    session_id = await world.start()
    store = SlowStore(world.store)
    log = SessionLog(await world.claim("one"), store, world.tail, world.clock)
    await log.load()

    writing = asyncio.create_task(log.commit([tokens("first")]))
    await store.entered.wait()
    writing.cancel()
    store.go_on.set()
    await asyncio.gather(writing, return_exceptions=True)
    await log.commit([tokens("second")])

    assert writing.cancelled()
    assert [event.sequence for event in await world.log(session_id)] == [1, 2, 3]


async def test_turns_that_end_while_another_write_is_under_way_are_all_kept() -> None:
    world = World()
    session_id = await world.start()
    store = SlowStore(world.store)
    log = SessionLog(await world.claim("one"), store, world.tail, world.clock)
    await log.load()

    writing = [asyncio.create_task(log.commit([finished(name)])) for name in ("trn_1", "trn_2", "trn_3")]
    await store.entered.wait()
    store.go_on.set()
    await asyncio.gather(*writing)

    assert [text for _, _, text in await contents(world, session_id)] == ["trn_1", "trn_2", "trn_3"]


async def test_a_turn_whose_end_was_shown_and_not_committed_is_kept_by_the_next_owner() -> None:
    world = World()
    session_id = await world.start()
    log = SessionLog(await world.claim("one"), world.store, world.tail, world.clock)
    await log.load()
    await log.commit([tokens("a commit")])
    await log.show([finished("trn_1")])
    world.clock.advance(TTL * 2)

    successor = SessionLog(await world.claim("two"), world.store, world.tail, world.clock)
    await successor.load()
    await successor.commit([tokens("another")])

    assert [text for _, _, text in await contents(world, session_id)] == ["trn_1"]


class SlowStore(MemorySessionStore):
    """Commits when it is let."""

    def __init__(self, real: MemorySessionStore) -> None:
        super().__init__(real._leases)
        self._kept = real._kept
        self.entered = asyncio.Event()
        self.go_on = asyncio.Event()

    async def append(self, lease: Lease, entries: Sequence[Entry], **given: Any) -> None:
        self.entered.set()
        await self.go_on.wait()
        await super().append(lease, entries, **given)


def tokens(text: str) -> event_pb2.SessionEvent:
    return event_pb2.SessionEvent(tokens_produced=event_pb2.TokensProduced(text=text))


def finished(name: str) -> event_pb2.SessionEvent:
    turn = turn_pb2.Turn(id=name, agent="Athena@1.0.0", round=1, content=name)
    return event_pb2.SessionEvent(turn_finished=event_pb2.TurnFinished(turn=turn))


async def test_a_log_never_goes_back_in_time_when_the_next_owners_clock_is_behind() -> None:
    world = World()
    world.inference.held_at = 4
    session_id = await world.start(agents=["Athena", "Apollo"], max_rounds=1)
    watching = Watching(world, session_id)
    async with driving(world, "one"):
        await watching.until(3)
    world.clock.advance(TTL * 2)
    lease = (await world.leases.claim("two", ttl=TTL, limit=1))[0]
    world.inference.release()
    behind = FakeClock(world.clock.now() - timedelta(hours=1))

    driver = world.driver()
    turns = replace(driver.turns, clock=behind)
    await replace(driver, clock=behind, turns=turns).drive(lease, asyncio.Event())

    log = await world.log(session_id)
    assert [event.time.ToNanoseconds() for event in log] == sorted(event.time.ToNanoseconds() for event in log)
    found = await world.store.turns(TENANT, session_id, agent="", round_number=0, page=Page())
    assert [turn.agent for turn in found] == ["Athena@1.0.0", "Apollo@1.0.0"]
    assert all(turn.end_time.ToNanoseconds() >= turn.start_time.ToNanoseconds() for turn in found)
    ended = await world.find(session_id)
    assert ended.end_time.ToNanoseconds() >= found[-1].end_time.ToNanoseconds()
