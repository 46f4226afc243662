"""What rules of policy hold in a graph: people are asked, and the node goes on or ends as they say."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from agentnet.orchestrator.v1 import agent_pb2, input_pb2, session_pb2, task_graph_pb2
from services.orchestrator.graphs.state import GraphState, fold
from services.orchestrator.store import KeptGraph
from shared import fields
from shared.errors import FailedPrecondition, PermissionDenied, Reason
from shared.identity import Principal
from tests.support.graphs import node
from tests.support.mortal import Fate, Killed, Moment, MortalStore, MortalTail
from tests.support.orchestrator import ADA, TENANT, TTL, World

OLGA = Principal(TENANT, "olga", frozenset({"operator"}))
HELD = FailedPrecondition(
    "the output waits for approval", reason=Reason.ERROR_REASON_CALL_APPROVAL_REQUIRED,
    rules="deals", bundles="sales@2.0.0",
)  # fmt: skip
BOOK = task_graph_pb2.TaskNode(id="book", tool="book", agent="Clerk", arguments=fields.struct({"seat": 1}))
COMPLETED = task_graph_pb2.TASK_STATUS_COMPLETED


async def with_clerk() -> World:
    """Somebody may book, and a rule holds it."""
    world = World()
    world.tools.rules = {"book@1.0.0": "big_payments"}
    active = agent_pb2.AGENT_STATE_ACTIVE
    await world.agents.create(TENANT, agent_pb2.Agent(name="Clerk", version="1.0.0", state=active, tools=["book"]))
    return world


async def waiting(*nodes: task_graph_pb2.TaskNode) -> tuple[World, KeptGraph, input_pb2.HumanInput]:
    """A graph that waits: the rule big_payments holds every booking."""
    world = await with_clerk()
    kept = await world.execute(*nodes)
    return world, kept, await question(world, kept)


async def question(world: World, kept: KeptGraph) -> input_pb2.HumanInput:
    """What the graph asks when it has come as far as it can."""
    await world.drive()
    (wanted,) = await world.inputs.every(TENANT, kept.session.id)
    return wanted


async def give(world: World, wanted: input_pb2.HumanInput, who: Principal = OLGA, **parts: Any) -> None:
    given = {"answer": "", "approved": True, "request_id": None, **parts}
    await world.inputs.give(who, wanted.session_id, wanted.id, **given)


async def results(world: World, kept: KeptGraph) -> dict[str, task_graph_pb2.TaskResult]:
    return {result.node_id: result for result in (await world.graphs.shown(TENANT, kept.graph.id)).results}


async def test_a_held_call_is_asked_about_while_others_run_and_nobody_drives_meanwhile() -> None:
    world, kept, wanted = await waiting(BOOK, node("beside"), node("after", "book"))

    assert (await world.find(kept.session.id)).status == session_pb2.SESSION_STATUS_AWAITING_INPUT
    assert await world.leases.claim("two", ttl=TTL, limit=9) == []
    assert (world.tools.done, len(world.inference.started)) == ([], 1)
    assert (list(wanted.rules), wanted.tool, wanted.arguments) == (["big_payments"], "book@1.0.0", '{"seat":1}')
    assert wanted.question.startswith("big_payments of default@1.0.0 holds a call. May Clerk@1.0.0 call book@1.0.0")

    with pytest.raises(PermissionDenied, match="an operator or admin"):
        await give(world, wanted, ADA)
    await give(world, wanted, answer="The rent.")
    await world.drive("two")

    assert (world.tools.tokens, world.tools.done) == (["token of ovr_1"], ['book@1.0.0 {"seat":1}'])
    assert {result.status for result in (await results(world, kept)).values()} == {COMPLETED}
    ended = await world.find(kept.session.id)
    assert (ended.status, list(ended.inputs)) == (session_pb2.SESSION_STATUS_COMPLETED, [])
    assert b"token of" not in b"".join([event.SerializeToString() for event in await world.log(kept.session.id)])


async def test_a_refused_call_fails_its_node_and_says_who_held_it() -> None:
    world, kept, wanted = await waiting(BOOK, node("after", "book"))

    await give(world, wanted, approved=False, answer="Too dear.")
    await world.drive("two")

    failure = (await results(world, kept))["book"].failure
    held = "big_payments of default@1.0.0 holds a call of book@1.0.0 by Clerk@1.0.0"
    assert failure.reason == Reason.ERROR_REASON_APPROVAL_REFUSED
    assert failure.message == f"{held}, and a person refused: Too dear."
    assert (await world.find(kept.session.id)).stop_reason == session_pb2.STOP_REASON_POLICY_BLOCKED
    assert world.tools.done == []


async def test_what_an_agent_says_is_asked_about_and_said_again_under_the_leave() -> None:
    world = World()
    world.inference.failures = [HELD]
    kept = await world.execute(node("sell"))
    wanted = await question(world, kept)
    assert wanted.question == "deals of sales@2.0.0 holds what Athena@1.0.0 says. May the turn go on without that rule?"

    await give(world, wanted)
    await world.drive("two")

    held, said = world.inference.started
    began = [event.task_started for event in await world.log(kept.session.id) if event.HasField("task_started")]
    assert (held.override_token, said.override_token) == ("", "token of ovr_1")
    assert [held.generation_id, said.generation_id] == [one.turn_id for one in began]
    assert held.generation_id != said.generation_id
    assert (await results(world, kept))["sell"].status == COMPLETED


async def test_nobody_answering_in_time_is_a_no() -> None:
    world, kept, _ = await waiting(BOOK)

    world.clock.advance(timedelta(hours=25))
    assert await world.expiry.look() == 1
    await world.drive("two")

    failure = (await results(world, kept))["book"].failure
    assert (failure.reason, failure.metadata["expired"]) == (Reason.ERROR_REASON_APPROVAL_REFUSED, "true")


async def test_leave_given_late_is_as_good_as_leave_given_at_once() -> None:
    world, kept, wanted = await waiting(BOOK)

    world.clock.advance(timedelta(hours=23, minutes=30))
    await give(world, wanted)
    await world.drive("two")

    assert (await results(world, kept))["book"].status == COMPLETED


async def test_leave_that_was_taken_back_is_asked_for_again() -> None:
    world, kept, wanted = await waiting(BOOK)

    await give(world, wanted)
    world.leave.overrides.clear()
    again = await question(world, kept)
    assert again.id == f"{wanted.id}_2"
    await give(world, again)
    await world.drive()

    assert (await results(world, kept))["book"].status == COMPLETED


async def test_a_graph_that_waits_for_leave_is_cancelled_as_any_other() -> None:
    world, kept, _ = await waiting(BOOK)

    await world.signal(kept.session.id, "cancel")
    await world.drive("two")

    session = await world.find(kept.session.id)
    assert (session.status, list(session.inputs)) == (session_pb2.SESSION_STATUS_CANCELLED, [])
    assert (await results(world, kept))["book"].status == task_graph_pb2.TASK_STATUS_CANCELLED


async def test_what_was_allowed_waits_while_its_graph_is_paused() -> None:
    world, kept, wanted = await waiting(BOOK)

    await world.signal(kept.session.id, "pause")
    await give(world, wanted)
    await world.drive("two")
    assert (await world.find(kept.session.id)).status == session_pb2.SESSION_STATUS_PAUSED
    assert world.tools.done == []
    await world.signal(kept.session.id, "resume")
    await world.drive("two")

    assert world.tools.done == ['book@1.0.0 {"seat":1}']


async def run_until_killed(world: World, fate: Fate) -> None:
    """Drives the graph with a mortal driver until it rests or dies."""
    driver = world.graph_driver(store=MortalStore(world.store, fate), tail=MortalTail(world.tail, fate))
    try:
        await driver.drive(await world.claim(), asyncio.Event())
    except Killed:
        world.clock.advance(TTL * 2)


async def go_on(world: World, kept: KeptGraph) -> None:
    """Another one drives it, and whatever it asks is allowed."""
    for asked in await world.inputs.every(TENANT, kept.session.id):
        await give(world, asked, request_id=asked.id)
    await world.drive("two")


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("held", [BOOK, node("book")])
async def test_who_drives_a_held_node_may_die_at_any_write(held: task_graph_pb2.TaskNode, moment: Moment) -> None:
    for at in range(1, 40):
        world = await with_clerk()
        world.inference.failures = [] if held.tool else [HELD]
        kept = await world.execute(held, node("after", "book"))
        fate = Fate(at, moment)
        await run_until_killed(world, fate)
        for asked in await world.inputs.every(TENANT, kept.session.id):
            await give(world, asked, request_id=asked.id)
            await run_until_killed(world, fate)
        died = fate.writes >= at
        while (await world.find(kept.session.id)).status != session_pb2.SESSION_STATUS_COMPLETED:
            await go_on(world, kept)

        assert len(world.tools.done) == bool(held.tool), f"died {moment} write {at}"
        state = fold(GraphState(), await world.log(kept.session.id))
        assert (state.inputs, state.held, state.finished) == ({}, {}, True)
        if not died:
            return
    pytest.fail("there are more writes than that")
