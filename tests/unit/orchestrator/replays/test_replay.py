"""A session is run again from its log: the same events, the same hash, and nobody is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from agentnet.inference.v1 import generation_pb2
from agentnet.orchestrator.v1 import event_pb2, history_service_pb2
from services.orchestrator.prompts import Known
from services.orchestrator.replays.replay import replay
from shared.errors import Aborted, Reason, Unavailable
from tests.support.orchestrator import ADA, TTL, Watching, World, driving

Story = Callable[[World], Awaitable[str]]


async def calm(world: World) -> str:
    world.memory.known = (Known("mem_1", "Gossip is cheap.", 0.75),)
    session_id = await world.start(max_rounds=3)
    await world.drive()
    return session_id


async def watched_over(world: World) -> str:
    verdict = generation_pb2.PolicyVerdict(rule="pii", bundle="default@1.0.0", action="redact", severity="minor")
    failover = generation_pb2.Failover(from_model="a", to_model="b", restarted=True)
    world.inference.interludes = [
        generation_pb2.GenerationEvent(verdict=verdict),
        generation_pb2.GenerationEvent(failover=failover),
    ]
    session_id = await world.start(max_rounds=2)
    await world.drive()
    return session_id


async def tried_again(world: World) -> str:
    world.inference.failures = [Unavailable("away", reason=Reason.ERROR_REASON_PROVIDER_UNAVAILABLE)]
    session_id = await world.start()
    await world.drive()
    return session_id


async def failed(world: World) -> str:
    world.inference.failures = [Aborted("no", reason=Reason.ERROR_REASON_POLICY_BLOCKED)]
    session_id = await world.start()
    await world.drive()
    return session_id


async def steered(world: World) -> str:
    session_id = await world.start(max_rounds=2, manual_advance=True)
    await world.drive()
    await world.signal(session_id, "pause")
    await world.signal(session_id, "advance")
    await world.drive()
    await world.signal(session_id, "resume")
    await world.drive()
    return session_id


async def cancelled_in_mid_turn(world: World) -> str:
    world.inference.held_at = 4
    session_id = await world.start()
    watching = Watching(world, session_id)
    signalled = asyncio.Event()
    driver = asyncio.create_task(world.runs().drive(await world.claim(), signalled))
    await watching.until(3)
    await world.signal(session_id, "cancel")
    signalled.set()
    await driver
    await watching.end()
    return session_id


async def taken_over_in_mid_turn(world: World) -> str:
    world.inference.held_at = 4
    session_id = await world.start(max_rounds=1)
    watching = Watching(world, session_id)
    async with driving(world, "one"):
        await watching.until(3)
    world.clock.advance(TTL * 2)
    world.inference.release()
    await world.drive("two")
    await watching.end()
    return session_id


STORIES = [calm, watched_over, tried_again, failed, steered, cancelled_in_mid_turn, taken_over_in_mid_turn]


async def replayed(world: World, log: list[event_pb2.SessionEvent]) -> history_service_pb2.ReplaySessionResponse:
    return await replay(log, ADA, world.agents, max_takeovers=5)


@pytest.mark.parametrize("story", STORIES)
async def test_a_replay_is_identical_and_asks_nobody(story: Story) -> None:
    world = World()
    log = await world.log(await story(world))
    asked = len(world.inference.started), len(world.memory.asked)

    found = await replayed(world, log)

    assert not found.HasField("difference"), found.difference
    assert found.identical
    assert found.events == len(log)
    assert found.replay_hash == found.log_hash
    assert (len(world.inference.started), len(world.memory.asked)) == asked


async def test_a_log_from_before_cancelled_turns_told_what_they_cost_replays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a log has nothing between the cancel and the end."""
    monkeypatch.setattr("services.orchestrator.drivers.session._CALLED_OFF_SECONDS", 0.1)
    world = World()
    log = await world.log(await cancelled_in_mid_turn(world))
    assert log[-2].turn_interrupted.cost.micros_usd == 3
    end = log[-1].session_finished.session
    assert end.cost_micros_usd == 3
    del log[-2]
    end.cost_micros_usd, end.last_sequence, log[-1].sequence = 0, end.last_sequence - 1, log[-1].sequence - 1
    end.usage.Clear()

    found = await replayed(world, log)

    assert not found.HasField("difference"), found.difference
    assert found.identical


async def test_every_prefix_of_a_log_replays_too() -> None:
    world = World()
    log = await world.log(await calm(world))

    for length in range(1, len(log) + 1):
        assert (await replayed(world, log[:length])).identical, length


async def test_a_miss_shows_the_event_the_field_and_both_texts() -> None:
    world = World()
    log = await world.log(await calm(world))
    turn = next(event for event in log if event.HasField("turn_finished")).turn_finished.turn
    turn.content = "Athena has no idea about it."

    found = await replayed(world, log)

    assert not found.identical
    assert found.log_hash != found.replay_hash
    difference = found.difference
    assert (difference.logged, difference.replayed) == ("turn_finished", "turn_finished")
    assert difference.field == "turn_finished.turn.content"
    assert "-Athena has no idea about it." in difference.diff
    assert "+Athena has one idea about it." in difference.diff
    assert found.events == difference.sequence - 1


async def test_a_part_that_is_there_but_empty_and_one_of_a_later_version_are_misses_too() -> None:
    world = World()
    log = await world.log(await calm(world))
    place = next(place for place, event in enumerate(log) if event.HasField("round_finished"))
    turn = next(event for event in log if event.HasField("turn_finished")).turn_finished.turn
    turn.failure.SetInParent()
    assert (await replayed(world, log)).difference.field == "turn_finished.turn.failure"
    turn.ClearField("failure")
    log[place].MergeFromString(b"\xfa\x7f\x01x")
    difference = (await replayed(world, log)).difference
    assert (difference.logged, difference.field) == ("round_finished", "")


async def test_an_event_the_session_would_never_have_is_named() -> None:
    world = World()
    log = await world.log(await calm(world))
    place = next(place for place, event in enumerate(log) if event.HasField("round_finished"))
    log[place].session_waiting.status = 4

    found = await replayed(world, log)

    assert (found.difference.logged, found.difference.replayed) == ("session_waiting", "round_finished")
    assert found.difference.sequence == place + 1
