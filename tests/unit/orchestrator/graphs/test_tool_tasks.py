"""Nodes that call a tool: the call is in the log first, its effect happens once, and doubt is told and never repeated."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from agentnet.orchestrator.v1 import agent_pb2, session_pb2, task_graph_pb2
from services.orchestrator.errors import ConditionFailed
from services.orchestrator.graphs import effects, shapes
from services.orchestrator.store import KeptGraph
from services.orchestrator.tool_tasks import REMEMBERED
from shared import fields
from shared.errors import (
    Aborted,
    FailedPrecondition,
    InvalidArgument,
    MeshError,
    NotFound,
    PermissionDenied,
    Reason,
    Unavailable,
)
from tests.support.graphs import node
from tests.support.mortal import Fate, Killed, Moment, MortalStore, MortalTail
from tests.support.orchestrator import ADA, TENANT, TTL, Watching, World, driving

DONE = task_graph_pb2.EFFECT_OUTCOME_DONE
FAILED = task_graph_pb2.EFFECT_OUTCOME_FAILED
UNKNOWN = task_graph_pb2.EFFECT_OUTCOME_UNKNOWN
IN_DOUBT = FailedPrecondition("nobody knows", reason=Reason.ERROR_REASON_TOOL_OUTCOME_UNKNOWN)
RUNNING = Aborted("it runs", reason=Reason.ERROR_REASON_TOOL_CALL_IN_PROGRESS)
AWAY = Unavailable("away", reason=Reason.ERROR_REASON_DEPENDENCY_UNAVAILABLE)
REFUSED = PermissionDenied("no", reason=Reason.ERROR_REASON_TOOL_NOT_ALLOWED)
BROKE = FailedPrecondition("it raised", reason=Reason.ERROR_REASON_FUNCTION_FAILED)


def call(name: str, *depends_on: str, tool: str = "book", **parts: Any) -> task_graph_pb2.TaskNode:
    """A node that calls a tool."""
    arguments, computed = parts.pop("arguments", {}), parts.pop("computed", {})
    given = task_graph_pb2.TaskNode(
        id=name, tool=tool, depends_on=depends_on, arguments=fields.struct(arguments), argument_expressions=computed
    )
    for part, value in parts.items():
        setattr(given, part, value)
    return shapes.node(given)


async def results(world: World, kept: KeptGraph) -> dict[str, task_graph_pb2.TaskResult]:
    return {result.node_id: result for result in (await world.graphs.shown(TENANT, kept.graph.id)).results}


async def last_checkpoint(world: World, kept: KeptGraph) -> str:
    return (await world.graphs.shown(TENANT, kept.graph.id)).last_checkpoint_id


async def resumed(world: World, kept: KeptGraph, *nodes: task_graph_pb2.TaskNode) -> KeptGraph:
    """The run that goes on from where this one ended, in the same graph or one of these nodes."""
    wanted = shapes.graph(task_graph_pb2.TaskGraph(nodes=nodes)) if nodes else None
    checkpoint = await last_checkpoint(world, kept)
    again = await world.graphs.execute(ADA, wanted, request_id=None, resume_from=checkpoint)
    await world.drive()
    return again


async def test_a_tool_is_called_with_what_earlier_nodes_came_to() -> None:
    world = World()
    world.tools.reply = lambda made: '{"id": 7}' if made.tool.startswith("search") else "booked"
    find = call("find", tool="search@2.1.0", arguments={"query": "flights", "most": 3})
    book = call("book", "find", arguments={"who": "Ada"}, computed={"flight": "results.find.json.id + 1"})
    kept = await world.execute(find, book, node("tell", "book"))
    await world.drive()
    found = await results(world, kept)

    assert world.tools.done == ['search@2.1.0 {"most":3,"query":"flights"}', 'book@1.0.0 {"flight":8,"who":"Ada"}']
    assert (found["book"].output, found["book"].agent, found["book"].status) == ("booked", "", 3)
    effect = found["book"].effect
    assert (effect.tool, effect.outcome, effect.replayed) == ("book@1.0.0", DONE, False)
    assert effect.invocation_id == "inv_2"
    assert "## book\nbooked" in world.inference.started[0].lines[-1].text
    assert len(world.inference.started) == 1


async def test_the_key_is_in_the_log_before_the_call_and_is_the_one_tools_gets() -> None:
    world = World()
    world.tools.held = asyncio.Event()
    kept = await world.execute(call("a", arguments={"x": 1}))
    async with driving(world, "one"):
        while not world.tools.done:
            await asyncio.sleep(0)
        events = await world.log(kept.session.id)
    (began,) = [event.task_started for event in events if event.HasField("task_started")]
    assert began.turn_id == began.effect.request_id
    assert list(world.tools._effects) == [began.effect.request_id]
    assert (began.effect.tool, json.loads(began.effect.arguments)) == ("book@1.0.0", {"x": 1})
    assert began.effect.HasField("reserve_time")


async def run_until_killed(world: World, fate: Fate) -> bool:
    """Drives the ready graph with a mortal driver; False when it lived to the end."""
    driver = world.graph_driver(store=MortalStore(world.store, fate), tail=MortalTail(world.tail, fate))
    try:
        await driver.drive(await world.claim("one"), asyncio.Event())
    except Killed:
        return True
    return False


def mixed() -> list[task_graph_pb2.TaskNode]:
    """Calls before, beside and after agents, one that fails over and one that is computed."""
    return [
        call("find", tool="search", arguments={"q": "x"}),
        node("think", "find"),
        call("left", "think", computed={"from": "results.find.output"}),
        call("right", "think", arguments={"side": "right"}),
        call("skipped", "think", condition="false"),
        node("tell", "left", "right"),
    ]


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_death_at_any_write_has_every_effect_once(moment: Moment) -> None:
    for at in range(1, 100):
        world = World()
        kept = await world.execute(*mixed())
        watching = Watching(world, kept.session.id)
        lived = not await run_until_killed(world, Fate(at, moment))
        if (await world.find(kept.session.id)).status != session_pb2.SESSION_STATUS_COMPLETED:
            world.clock.advance(TTL * 2)
            await world.drive("two")

        found = await results(world, kept)
        events = await world.log(kept.session.id)
        assert await watching.end() == [event.SerializeToString() for event in events]
        told = f"died {moment} write {at}"
        assert Counter(world.tools.done) == {
            'search@1.0.0 {"q":"x"}': 1,
            'book@1.0.0 {"from":"search@1.0.0 found it."}': 1,
            'book@1.0.0 {"side":"right"}': 1,
        }, told
        assert [found[name].effect.outcome for name in ("find", "left", "right")] == [DONE] * 3, told
        reserved = {event.task_started.effect.request_id for event in events if event.task_started.HasField("effect")}
        assert set(world.tools._effects) == reserved, "an effect happened that was not reserved"
        if lived:
            break
    else:
        pytest.fail("the graph never lived to its end")
    assert at > 10


async def test_a_death_between_the_effect_and_its_answer_is_asked_for_again_under_the_same_key() -> None:
    world = World()
    world.tools.held = asyncio.Event()
    kept = await world.execute(call("a"))
    async with driving(world, "one"):
        while not world.tools.done:
            await asyncio.sleep(0)
    world.tools.held = None
    world.clock.advance(TTL * 2)
    await world.drive("two")
    (result,) = (await results(world, kept)).values()
    assert world.tools.done == ["book@1.0.0 {}"]
    assert (result.effect.outcome, result.effect.replayed, result.output) == (DONE, True, "book@1.0.0 found it.")


async def test_an_unknown_outcome_is_asked_for_again_under_its_key_and_reconciled() -> None:
    world = World()
    world.tools.refusals = {"book@1.0.0": [IN_DOUBT, IN_DOUBT]}
    kept = await world.execute(call("a"))
    await world.drive()
    (result,) = (await results(world, kept)).values()
    events = await world.log(kept.session.id)
    assert len({event.task_started.turn_id for event in events if event.HasField("task_started")}) == 1
    assert (result.retries, result.effect.outcome) == (2, DONE)


async def test_an_outcome_that_stays_unknown_is_a_typed_result_and_goes_no_further() -> None:
    world = World()
    world.tools.refusals = {"book@1.0.0": [IN_DOUBT] * 3}
    kept = await world.execute(call("a"), node("b", "a"))
    await world.drive()
    found = await results(world, kept)
    assert found["a"].effect.outcome == UNKNOWN
    assert found["a"].failure.reason == Reason.ERROR_REASON_TOOL_OUTCOME_UNKNOWN
    assert found["a"].failure.metadata["request_id"] == found["a"].effect.request_id
    assert found["b"].status == task_graph_pb2.TASK_STATUS_SKIPPED
    assert world.tools.done == []


@pytest.mark.parametrize("changed", [False, True])
async def test_a_run_from_a_checkpoint_asks_for_an_unknown_outcome_under_the_old_key(changed: bool) -> None:
    world = World()
    world.tools.refusals = {"book@1.0.0": [IN_DOUBT] * 3}
    kept = await world.execute(call("a"), node("b", "a"))
    await world.drive()
    before = (await results(world, kept))["a"].effect
    again = await resumed(world, kept, *([call("a"), node("other", "a")] if changed else []))
    after = (await results(world, again))["a"]
    assert again.graph.id != kept.graph.id
    assert list(world.tools._effects) == [before.request_id] == [after.effect.request_id]
    assert after.effect.reserve_time == before.reserve_time
    assert after.effect.outcome == DONE


async def test_what_tools_may_have_forgotten_is_asked_for_no_more() -> None:
    world = World()
    world.tools.refusals = {"book@1.0.0": [IN_DOUBT] * 3}
    kept = await world.execute(call("a"))
    await world.drive()
    world.clock.advance(REMEMBERED + timedelta(minutes=1))
    again = await resumed(world, kept)
    (result,) = (await results(world, again)).values()
    assert world.tools.done == []
    assert (result.effect.outcome, result.failure.metadata["cause"]) == (UNKNOWN, "TOOL_OUTCOME_UNKNOWN")


async def test_a_call_that_was_cancelled_under_way_is_in_doubt_and_settled_by_a_later_run() -> None:
    world = World()
    world.tools.held = asyncio.Event()
    kept = await world.execute(call("a"))
    async with driving(world, "one") as drive:
        while not world.tools.done:
            await asyncio.sleep(0)
        await world.graphs.cancel(ADA, kept.graph.id, "", request_id=None)
        await asyncio.wait_for(drive, 5)
    (result,) = (await results(world, kept)).values()
    assert (result.status, result.effect.outcome) == (task_graph_pb2.TASK_STATUS_CANCELLED, UNKNOWN)
    assert world.inference.cancelled == []
    world.tools.held = None
    again = await resumed(world, kept)
    (settled,) = (await results(world, again)).values()
    assert (settled.effect.outcome, settled.effect.replayed) == (DONE, True)
    assert len(world.tools.done) == 1


async def test_a_call_that_takes_too_long_is_tried_again_under_its_key_and_then_in_doubt() -> None:
    world = World()
    world.tools.held = asyncio.Event()
    slow = call("a", max_attempts=2)
    slow.timeout.FromMilliseconds(20)
    kept = await world.execute(slow)
    await world.drive()
    (result,) = (await results(world, kept)).values()
    assert (result.retries, result.effect.outcome, len(world.tools.done)) == (1, UNKNOWN, 1)
    assert result.failure.metadata["cause"] == "TASK_TIMED_OUT"


@pytest.mark.parametrize("passing", [[AWAY] * 5, [RUNNING] * 12])
async def test_tools_away_for_a_moment_and_a_call_that_still_runs_are_waited_for(passing: list[MeshError]) -> None:
    world = World()
    world.tools.refusals = {"book@1.0.0": list(passing)}
    kept = await world.execute(call("a"))
    await world.drive()
    (result,) = (await results(world, kept)).values()
    assert (result.retries, result.effect.outcome) == (0, DONE)


@pytest.mark.parametrize("error", [REFUSED, BROKE])
async def test_a_refusal_and_a_tools_own_failure_are_certain(error: MeshError) -> None:
    world = World()
    world.tools.refusals = {"book@1.0.0": [error]}
    kept = await world.execute(call("a"))
    await world.drive()
    (result,) = (await results(world, kept)).values()
    assert (result.effect.outcome, result.failure.reason, result.retries) == (FAILED, error.reason, 0)
    again = await resumed(world, kept)
    (anew,) = (await results(world, again)).values()
    assert anew.effect.request_id != result.effect.request_id
    assert anew.effect.outcome == DONE


@pytest.mark.parametrize(("error", "outcome"), [(REFUSED, UNKNOWN), (BROKE, FAILED)])
async def test_a_refusal_to_the_next_owner_says_nothing_of_what_the_first_one_did(
    error: MeshError, outcome: int
) -> None:
    world = World()
    world.tools.held = asyncio.Event()
    kept = await world.execute(call("a", max_attempts=1))
    async with driving(world, "one"):
        while not world.tools.done:
            await asyncio.sleep(0)
    world.tools.refusals = {"book@1.0.0": [error]}
    world.clock.advance(TTL * 2)
    await world.drive("two")
    (result,) = (await results(world, kept)).values()
    assert result.effect.outcome == outcome


@pytest.mark.parametrize(
    "expression", ["results.find.json.id", "1.0 / 0.0", "b'x'", "timestamp('2020-01-01T00:00:00Z')"]
)
async def test_an_argument_that_cannot_be_computed_fails_the_node_and_nothing_is_called(expression: str) -> None:
    world = World()
    kept = await world.execute(call("find", tool="search"), call("a", "find", computed={"x": expression}))
    await world.drive()
    found = await results(world, kept)
    assert found["a"].failure.reason == Reason.ERROR_REASON_CONDITION_FAILED
    assert not found["a"].HasField("effect")
    assert world.tools.done == ["search@1.0.0 {}"]


@pytest.mark.parametrize(
    ("faulty", "path"),
    [
        (call("a", kind=task_graph_pb2.TASK_KIND_PLANNER), "a.kind"),
        (call("a", fallback_agent="Apollo"), "a.fallback_agent"),
        (call("a", arguments={"x": 1}, computed={"x": "2"}), "a.x"),
        (call("a", computed={"x": "1 +"}), "a.x"),
        (call("a", tool="", agent="Athena", prompt="p", arguments={"x": 1}), "a"),
    ],
)
async def test_a_node_that_cannot_call_is_refused_with_its_path(faulty: task_graph_pb2.TaskNode, path: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await World().execute(faulty)
    assert (refused.value.reason, refused.value.facts["path"]) == (Reason.ERROR_REASON_GRAPH_INVALID, path)


SCHEMA = {
    "type": "object",
    "properties": {"who": {"type": "string", "minLength": 2}, "seats": {"type": "integer", "maximum": 9}},
    "required": ["who"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("arguments", "computed", "path"),
    [
        ({}, {"seats": "1"}, "a.who"),
        ({"who": "Ada", "extra": 1}, {}, "a.extra"),
        ({"who": "A"}, {}, "a.who"),
        ({"who": "Ada", "seats": 10}, {}, "a.seats"),
        ({"who": "Ada", "seats": "two"}, {}, "a.seats"),
    ],
)
async def test_arguments_that_cannot_fit_are_refused_before_anything_runs(
    arguments: dict[str, Any], computed: dict[str, str], path: str
) -> None:
    world = World()
    world.tools.schemas = {"book": fields.struct(SCHEMA)}
    await world.execute(call("ok", computed={"who": "'Ada'"}, arguments={"seats": 2}))
    with pytest.raises(InvalidArgument) as refused:
        await world.execute(call("a", arguments=arguments, computed=computed))
    assert (refused.value.facts["fault"], refused.value.facts["path"]) == ("arguments", path)


async def test_a_tool_that_is_not_there_is_refused() -> None:
    with pytest.raises(NotFound) as refused:
        await World().execute(call("a", tool="ghost"))
    assert refused.value.reason == Reason.ERROR_REASON_TOOL_NOT_FOUND


async def test_an_agent_calls_only_what_it_was_given() -> None:
    world = World()
    active = agent_pb2.AGENT_STATE_ACTIVE
    await world.agents.create(TENANT, agent_pb2.Agent(name="Clerk", version="1.0.0", state=active, tools=["book"]))
    kept = await world.execute(call("a", agent="Clerk"))
    await world.drive()
    assert (await results(world, kept))["a"].agent == "Clerk@1.0.0"
    with pytest.raises(PermissionDenied) as refused:
        await world.execute(call("a", agent="Athena"))
    assert refused.value.reason == Reason.ERROR_REASON_TOOL_NOT_ALLOWED


def test_arguments_longer_than_a_call_may_have_fail_the_node() -> None:
    large = node("a", agent="", tool="book", arguments={"text": "x" * effects.ARGUMENT_CHARACTERS})
    with pytest.raises(ConditionFailed) as raised:
        effects.reserved("tgr_1", large, {}, depends_on=(), before=None)
    assert raised.value.facts["node_id"] == "a"
