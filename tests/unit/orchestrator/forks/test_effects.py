"""Tools of a fork do not act on the world: calls are answered as its origin's were, or refused; then it replays."""

from __future__ import annotations

from typing import Any

from agentnet.inference.v1 import message_pb2
from agentnet.orchestrator.v1 import agent_pb2, event_pb2, session_pb2
from services.orchestrator.agents import ACTIVE
from services.orchestrator.forks.fork import Fork
from shared.errors import Reason
from tests.support.orchestrator import ADA, TENANT, World
from tests.support.toolwork import asked, call, events, script

SAME = [call("search", q="raft"), call("search", q="raft"), call("ask_human", question="Which?")]


async def answered(world: World, session_id: str) -> None:
    """Drives a session whose person answers whatever is asked."""
    await world.drive()
    for wanted in (await world.find(session_id)).inputs:
        await world.inputs.give(ADA, session_id, wanted.id, answer="The second.", approved=True, request_id=None)
    await world.drive()


async def forked(world: World, source: str, *steps: Any, side_effects: bool = False, sequence: int = 1) -> str:
    """A fork, run to its end, whose model says other things."""
    world.inference.reply = script(*steps)
    how = Fork(sequence, session_pb2.SessionOverrides(), side_effects)
    made = (await world.histories.fork(ADA, source, how, request_id=None)).id
    await world.drive()
    return made


async def outcomes(world: World, session_id: str) -> list[event_pb2.ToolFinished]:
    return await events(world, session_id, "tool_finished")


async def source_of(calls: list[message_pb2.ToolCall], **parts: Any) -> tuple[World, str]:
    world, session_id = await asked(calls, "Done.", **parts)
    numbers = iter(range(1, 9))
    world.tools.reply = lambda one: f"{one.tool} found {next(numbers)}."
    await answered(world, session_id) if any(one.name == "ask_human" for one in calls) else await world.drive()
    return world, session_id


async def test_the_same_calls_are_answered_from_the_origin_and_nothing_happens() -> None:
    world, source = await source_of(SAME)
    done = list(world.tools.done)
    before = {one.call.request_id: one.outcome.result for one in await outcomes(world, source)}

    made = await forked(world, source, SAME, "Done again.")

    assert world.tools.done == done
    found = await outcomes(world, made)
    assert sorted(one.outcome.result for one in found) == sorted(before.values())
    assert not any(one.HasField("failure") for one in found)
    assert not before.keys() & {one.call.request_id for one in found}
    assert not await events(world, made, "input_requested")
    assert (await world.find(made)).status == session_pb2.SESSION_STATUS_COMPLETED


async def test_other_calls_and_questions_are_refused_and_the_model_is_told_why() -> None:
    world, source = await source_of([call("search", q="raft")])
    done = list(world.tools.done)

    made = await forked(
        world, source, [call("search", q="paxos"), call("book", seat=1), call("ask_human", question="May I?")], "I see."
    )

    assert world.tools.done == done
    found = await outcomes(world, made)
    assert [one.failure.reason for one in found] == [Reason.ERROR_REASON_EFFECTS_OFF] * 3
    (exchange,) = world.inference.started[-1].exchanges
    assert all(one.failed and one.result and one.result.startswith("EFFECTS_OFF: ") for one in exchange.calls)
    assert (await world.find(made)).status == session_pb2.SESSION_STATUS_COMPLETED


async def test_no_leave_is_asked_for_what_has_no_effect() -> None:
    world, source = await asked([call("book", seat=1)], "Done.", require_approval=["*"])
    await answered(world, source)

    made = await forked(world, source, [call("book", seat=1)], "Done.")

    assert not await events(world, made, "input_requested")
    assert [one.outcome.result for one in await outcomes(world, made)] == ["book found it."]
    assert world.tools.done == ['book {"seat": 1}']


async def test_a_call_that_failed_in_the_origin_fails_in_the_same_way() -> None:
    world, source = await asked([call("delete")], "Done.")
    await world.drive()
    made = await forked(world, source, [call("delete")], "Done.")
    before, after = await outcomes(world, source), await outcomes(world, made)
    assert [one.failure.reason for one in after] == [one.failure.reason for one in before]
    assert after[0].failure.reason == Reason.ERROR_REASON_TOOL_NOT_FOUND


async def test_with_side_effects_the_tools_are_called() -> None:
    world, source = await source_of([call("search", q="raft")])
    await forked(world, source, [call("search", q="raft")], "Done.", side_effects=True)
    assert world.tools.done == ['search {"q": "raft"}'] * 2


async def test_a_fork_without_effects_replays_and_asks_nobody() -> None:
    world, source = await source_of(SAME)
    made = await forked(world, source, [*SAME, call("book", seat=1)], "Done again.")
    asked_before = len(world.inference.started), len(world.tools.done)

    found = await world.histories.replay(TENANT, made)

    assert found.identical, found.difference
    assert (len(world.inference.started), len(world.tools.done)) == asked_before


async def test_a_fork_where_its_origin_waited_for_a_person_asks_nobody_for_the_void_turn() -> None:
    world, source = await asked([call("ask_human", question="Which?")], "Done.")
    await world.drive()
    (wanted,) = (await world.find(source)).inputs

    made = await forked(world, source, "No question.", sequence=0)

    assert not (await world.find(made)).inputs
    assert (await world.find(source)).inputs == [wanted]
    assert (await world.histories.replay(TENANT, made)).identical


async def test_who_takes_an_agents_place_has_its_part_and_its_priority() -> None:
    world = World()
    for name in ("Hestia", "Hephaestus"):
        await world.agents.create(TENANT, agent_pb2.Agent(name=name, version="2.0.0", state=ACTIVE))
    options = session_pb2.SessionOptions(judge="Hermes", priorities={"Athena": 1, "Apollo": 5})
    source = await world.start(
        agents=["Athena", "Apollo", "Hermes"], mode="debate", strategy="priority", max_rounds=1, options=options
    )
    instead = {"Hermes": "Hestia", "Apollo": "Hephaestus"}
    how = Fork(1, session_pb2.SessionOverrides(agents=instead), side_effects=False)

    made = await world.histories.fork(ADA, source, how, request_id=None)

    assert made.options.judge == made.agents[2] == "Hestia@2.0.0"
    assert dict(made.options.priorities) == {"Athena": 1, "Hephaestus": 5}
