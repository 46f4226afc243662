"""Every kind of dialogue is run again from its log: turns at the same time, tools, people, measures, deaths."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from agentnet.orchestrator.v1 import agent_pb2, event_pb2, history_service_pb2, session_pb2
from services.orchestrator.peers import TurnMemory
from services.orchestrator.prompts import Known
from services.orchestrator.replays.replay import replay
from shared import fields
from shared.errors import Reason, Unavailable
from shared.identity import Principal
from tests.support.modes import PLAN, THREE, VERDICT, ballot, points, scripted
from tests.support.mortal import Fate, Killed, Moment, MortalStore, MortalTail
from tests.support.orchestrator import ADA, TENANT, TTL, ScriptedMemory, Watching, World, driving
from tests.support.toolwork import TWO, asked, call

Story = Callable[[], Awaitable[tuple[World, str]]]


async def driven(world: World, **parts: object) -> tuple[World, str]:
    session_id = await world.start(**parts)  # type: ignore[arg-type] # handed on
    await world.drive()
    return world, session_id


async def replayed(world: World, session_id: str) -> history_service_pb2.ReplaySessionResponse:
    """Replayed with another mesh's limits, and nobody to ask."""
    before = len(world.inference.started), len(world.inference.embedded), len(world.tools.done)
    found = await replay(await world.log(session_id), ADA, world.agents, max_takeovers=5)
    assert (len(world.inference.started), len(world.inference.embedded), len(world.tools.done)) == before
    return found


async def identical(world: World, session_id: str) -> None:
    found = await replayed(world, session_id)
    assert not found.HasField("difference"), found.difference
    assert found.identical
    assert found.replay_hash == found.log_hash


async def debate() -> tuple[World, str]:
    listed = iter([points("Is Raft enough?"), points("Is Raft enough?")])
    world = scripted(World(), contested_points=lambda _: next(listed), verdict=VERDICT)
    return await driven(world, agents=THREE, mode="debate", max_rounds=2)


async def consensus_with_votes() -> tuple[World, str]:
    answers = iter(['{"choice": "Z"}', ballot("A")])
    world = scripted(World(), vote=ballot("A"), vote_Hermes=lambda _: next(answers))
    return await driven(world, agents=THREE, mode="consensus", max_rounds=2)


async def ensemble() -> tuple[World, str]:
    world = scripted(World(), plain_Athena="It is 4 and that is all.", plain_Apollo="4", plain_Hermes="It may be 5.")
    return await driven(world, agents=THREE, mode="ensemble")


async def planning() -> tuple[World, str]:
    return await driven(scripted(World(), plan=PLAN), agents=THREE, mode="planning", max_rounds=2)


async def adaptive() -> tuple[World, str]:
    return await driven(World(), agents=THREE, strategy="adaptive", topic="Brainstorm creative ideas", max_rounds=2)


async def moderated() -> tuple[World, str]:
    named = iter(["Hermes", "Apollo", "Hermes", "Apollo"])
    world = scripted(World(), floor=lambda _: json.dumps({"next": next(named), "reason": "She knows."}))
    options = session_pb2.SessionOptions(moderator="Athena")
    return await driven(world, agents=THREE, strategy="moderator", options=options)


async def tries_at_the_same_time() -> tuple[World, str]:
    world = World()
    away = Unavailable("away", reason=Reason.ERROR_REASON_PROVIDER_UNAVAILABLE)
    world.inference.failures = [None, away, None, away]
    world.inference.reply = lambda utterance: " ".join(["word"] * (3 + 4 * len(utterance.agent.name)))
    return await driven(world, agents=THREE, strategy="parallel")


class SlowMemory(ScriptedMemory):
    """Takes so long that other turns go on meanwhile."""

    async def recall(self, caller: Principal, *, session_id: str, agent: str, query: str) -> TurnMemory:
        for _ in range(40):
            await asyncio.sleep(0)
        return await super().recall(caller, session_id=session_id, agent=agent, query=query)


async def tries_while_the_log_goes_on() -> tuple[World, str]:
    world = World(memory=SlowMemory())
    away = Unavailable("away", reason=Reason.ERROR_REASON_PROVIDER_UNAVAILABLE)
    world.inference.failures = [away, away, None]
    world.inference.reply = lambda utterance: " ".join(
        ["word"] * {"Athena": 2, "Apollo": 12, "Hermes": 16}[utterance.agent.name]
    )
    return await driven(world, agents=THREE, strategy="parallel", max_rounds=1)


async def a_try_that_fails_all() -> tuple[World, str]:
    world = World()
    world.inference.failures = [None, Unavailable("no", reason=Reason.ERROR_REASON_POLICY_BLOCKED)]
    world.inference.reply = lambda utterance: " ".join(["word"] * (50 if utterance.agent.name == "Athena" else 2))
    return await driven(world, agents=THREE, strategy="parallel")


async def two_calls_at_the_same_time() -> tuple[World, str]:
    world, session_id = await asked(TWO, [call("book", seat=1)], "Done.")
    await world.drive()
    return world, session_id


async def calls_that_come_to_nothing() -> tuple[World, str]:
    world, session_id = await asked(
        [call("search", q="raft"), call("delete"), call("book", seat=1)],
        limits=session_pb2.SessionLimits(max_iterations=2),
    )
    world.tools.refusals = {"search": [Unavailable("away")]}
    world.tools.reply = lambda one: "x" * 20_000
    await world.drive()
    return world, session_id


async def a_person_answers() -> tuple[World, str]:
    world, session_id = await asked([call("ask_human", question="Which?"), call("search", q="raft")], "Thanks.")
    await world.drive()
    (wanted,) = (await world.find(session_id)).inputs
    await world.inputs.say(ADA, session_id, "Be quick.", request_id=None)
    await world.inputs.give(ADA, session_id, wanted.id, answer="The second.", approved=False, request_id=None)
    await world.drive()
    return world, session_id


async def a_person_refuses() -> tuple[World, str]:
    world, session_id = await asked([call("book", seat=1)], "Then not.", require_approval=["*"])
    await world.drive()
    (wanted,) = (await world.find(session_id)).inputs
    await world.inputs.give(ADA, session_id, wanted.id, answer="Too dear.", approved=False, request_id=None)
    await world.drive()
    return world, session_id


async def people_talk_in_between() -> tuple[World, str]:
    world = World()
    session_id = await world.start(max_rounds=3, manual_advance=True)
    for said in ("Think of cost.", "And of people."):
        await world.drive()
        await world.inputs.say(ADA, session_id, said, request_id=None)
        await world.signal(session_id, "advance")
    await world.drive()
    return world, session_id


async def meaning() -> tuple[World, str]:
    world = World()
    world.inference.embed_refusals = [Unavailable("away")]
    measures = [session_pb2.MeasureRule(measure="semantic"), session_pb2.MeasureRule(measure="stagnation", rounds=5)]
    return await driven(world, max_rounds=6, measures=measures)


async def a_small_window() -> tuple[World, str]:
    world = World()
    world.inference.window = 300
    return await driven(world, topic="Why do leases need fences? " * 60, max_rounds=2)


async def much_to_remember() -> tuple[World, str]:
    world, session_id = await asked([call("search", q="raft")], "Raft.", topic="Why do leases need fences? " * 60)
    world.memory.known = tuple(Known(f"mem_{place}", "Gossip is cheap. " * 30, 0.5) for place in range(9))
    world.inference.window = 300
    await world.drive()
    return world, session_id


async def taken_over_between_tools() -> tuple[World, str]:
    world, session_id = await asked([call("book", seat=1), call("search", q="raft")], "Done.")
    world.tools.crashes = {"book"}
    with pytest.raises(Killed):
        await world.drive()
    world.clock.advance(TTL * 2)
    await world.drive("two")
    return world, session_id


async def cancelled_with_turns_in_flight() -> tuple[World, str]:
    world = World()
    world.inference.held_at = 4
    session_id = await world.start(agents=THREE, strategy="parallel")
    watching = Watching(world, session_id)
    async with driving(world, "one"):
        await watching.until(6)
        await world.signal(session_id, "cancel")
    watching.stop()
    world.inference.release()
    world.clock.advance(TTL * 2)
    await world.drive("two")
    return world, session_id


async def speaks_in_a_style() -> tuple[World, str]:
    world = World()
    world.inference.reply = lambda _: "First, what do we know? Therefore it follows that 4 of 5 leases expire."
    sage = agent_pb2.Agent(
        name="Sage", version="1.0.0", state=agent_pb2.AGENT_STATE_ACTIVE, system_prompt="Reason.",
        style=fields.struct({"logic": 0.9, "creativity": 0.3, "wit": 1.0}),
    )  # fmt: skip
    await world.agents.create(TENANT, sage)
    return await driven(world, agents=["Sage"], mode="single", max_rounds=1)


STORIES = [
    debate, consensus_with_votes, ensemble, planning, adaptive, moderated, tries_at_the_same_time, tries_while_the_log_goes_on, a_try_that_fails_all,
    two_calls_at_the_same_time, calls_that_come_to_nothing, a_person_answers, a_person_refuses, people_talk_in_between,
    meaning, a_small_window, much_to_remember, taken_over_between_tools, cancelled_with_turns_in_flight,
    speaks_in_a_style,
]  # fmt: skip
SHOWS = {
    debate: "points_contested",
    consensus_with_votes: "turn_interrupted",
    ensemble: "decision_reached",
    planning: "plan_made",
    adaptive: "strategy_chosen",
    moderated: "handed_off",
    calls_that_come_to_nothing: "tool_finished",
    a_person_answers: "input_given",
    a_person_refuses: "input_requested",
    people_talk_in_between: "message_injected",
    a_small_window: "prompt_reduced",
    much_to_remember: "prompt_reduced",
    taken_over_between_tools: "session_taken_over",
}


@pytest.mark.parametrize("story", STORIES)
async def test_a_dialogue_is_replayed_to_the_same_hash_and_nobody_is_asked(story: Story) -> None:
    world, session_id = await story()
    kinds = await world.kinds(session_id)
    assert kinds[-1] == "session_finished"
    assert SHOWS.get(story, "turn_finished" if story != cancelled_with_turns_in_flight else "turn_started") in kinds

    await identical(world, session_id)


@pytest.mark.parametrize("story", [ensemble, two_calls_at_the_same_time, a_person_answers])
async def test_every_prefix_replays_too(story: Story) -> None:
    world, session_id = await story()
    log = await world.log(session_id)
    for length in range(1, len(log) + 1):
        found = await replay(log[:length], ADA, world.agents, max_takeovers=5)
        assert found.identical, (length, found.difference)


async def test_turns_at_the_same_time_share_the_log() -> None:
    world, session_id = await tries_at_the_same_time()
    spoken = [
        event.tokens_produced.turn_id for event in await world.log(session_id) if event.HasField("tokens_produced")
    ]
    changes = sum(one != other for one, other in zip(spoken, spoken[1:], strict=False))
    assert changes > len(set(spoken)), "no two turns spoke at the same time"


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("tooled", [True, False])
async def test_a_death_at_any_write_leaves_a_log_that_replays(moment: Moment, *, tooled: bool) -> None:
    for at in range(1, 100):
        if tooled:
            world, session_id = await asked(TWO, [call("book", seat=1)], "Done.")
        else:
            world = World()
            session_id = await world.start(agents=THREE, strategy="parallel", max_rounds=2)
        fate = Fate(at, moment)
        driver = world.driver(store=MortalStore(world.store, fate), tail=MortalTail(world.tail, fate))
        try:
            await driver.drive(await world.claim("one"), asyncio.Event())
        except Killed:
            world.clock.advance(TTL * 2)
            if (await world.find(session_id)).status != session_pb2.SESSION_STATUS_COMPLETED:
                await world.drive("two")
        else:
            break
        await identical(world, session_id)
    assert at > 10


async def changed(story: Story, kind: str, change: Callable[[event_pb2.SessionEvent], None]) -> str:
    """The field a replay differs in after a change of the last such event."""
    world, session_id = await story()
    log = await world.log(session_id)
    change([event for event in log if event.HasField(kind)][-1])  # type: ignore[arg-type] # a payload's name
    found = await replay(log, ADA, world.agents, max_takeovers=5)
    assert not found.identical
    assert found.log_hash != found.replay_hash
    return found.difference.field


async def test_what_was_edited_in_a_dialogue_is_named() -> None:
    def dearer(event: event_pb2.SessionEvent) -> None:
        event.progressed.iteration = 7

    def other_points(event: event_pb2.SessionEvent) -> None:
        event.points_contested.points.append("Is it cheap?")

    def closer(event: event_pb2.SessionEvent) -> None:
        event.round_finished.scores[-1].score = 0.5

    def longer(event: event_pb2.SessionEvent) -> None:
        event.prompt_reduced.tokens_before += 1

    assert await changed(debate, "points_contested", other_points) == "points_contested.points"
    assert await changed(two_calls_at_the_same_time, "progressed", dearer) == "progressed.iteration"
    assert await changed(meaning, "round_finished", closer) == "round_finished.scores"
    assert await changed(a_small_window, "prompt_reduced", longer) == "prompt_reduced.tokens_before"
