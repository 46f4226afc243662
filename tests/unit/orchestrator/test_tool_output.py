"""What tools show and leave: read before they end, cut when long, kept by reference."""

from __future__ import annotations

import asyncio

import pytest

from agentnet.orchestrator.v1 import event_pb2, turn_pb2
from services.orchestrator.peers import ToolShown
from services.orchestrator.replays.replay import replay
from tests.support.orchestrator import ADA, Watching, driving
from tests.support.toolwork import asked, call, events, only_turn


async def test_a_long_result_is_cut_and_says_so() -> None:
    world, session_id = await asked([call("search", q="raft")], "Raft.")
    world.tools.reply = lambda _: "x" * 20_000

    await world.drive()

    (finished,) = await events(world, session_id, "tool_finished")
    assert (len(finished.outcome.result), finished.outcome.truncated) == (16_384, True)


async def test_a_result_that_is_cut_tells_the_agent_where_the_whole_is_and_replays() -> None:
    world, session_id = await asked([call("search", q="raft")], "Raft.")
    world.tools.reply = lambda _: "x" * 20_000
    left = turn_pb2.LeftArtefact(invocation_id="inv_1", name="whole_result.txt", size=20_000, sha256="ab")
    world.tools.leaves = {"search": [left]}

    await world.drive()

    (finished,) = await events(world, session_id, "tool_finished")
    told = finished.outcome.result
    assert (len(told), finished.outcome.truncated) == (16_384, True)
    assert told.endswith("x\n(Cut here. All 20000 bytes are the artefact whole_result.txt of invocation inv_1.)")
    assert (await replay(await world.log(session_id), ADA, world.agents, max_takeovers=5)).identical


LOOKING = [ToolShown("stdout", "page 1\n", "inv_9"), ToolShown("progress", '{"done": 0.5}', "inv_9")]


async def test_what_a_tool_shows_while_it_runs_is_read_before_it_ends() -> None:
    world, session_id = await asked([call("search", q="raft")], "Raft.")
    world.tools.shows, world.tools.held = {"search": LOOKING}, asyncio.Event()
    watching = Watching(world, session_id)
    async with driving(world, "one") as work:
        await watching.until(6)
        assert (await world.kinds(session_id))[-1] == "tool_started"  # nothing is committed, and yet it was read
        world.tools.held.set()
        await work
    read = [event_pb2.SessionEvent.FromString(one) for one in await watching.end()]
    kinds = [event.WhichOneof("payload") for event in read]
    place = kinds.index("tool_started")
    assert kinds[place : place + 4] == ["tool_started", "tool_progressed", "tool_progressed", "tool_finished"]
    shown = [event.tool_progressed for event in read if event.HasField("tool_progressed")]
    assert [(one.tool, one.kind, one.text) for one in shown] == [
        ("search", "stdout", "page 1\n"),
        ("search", "progress", '{"done": 0.5}'),
    ]
    assert [event.SerializeToString() for event in await world.log(session_id)] == await watching.end()


@pytest.mark.parametrize(
    ("rule", "stopped"),
    [("output.contains('page 1')", True), ("kind == 'progress'", True), ("count > 2", False), ("nothing > 1", False)],
)
async def test_an_agents_rule_stops_a_tool_that_has_shown_enough(rule: str, stopped: bool) -> None:
    world, session_id = await asked([call("search", q="raft")], "Raft.", stop_tools_when={"search": rule})
    world.tools.shows = {"search": LOOKING}

    await world.drive()

    (finished,) = await events(world, session_id, "tool_finished")
    assert finished.outcome.stopped is stopped
    assert world.tools.done == ([] if stopped else ['search {"q": "raft"}'])
    (exchange,) = world.inference.started[1].exchanges
    assert ("page 1" in (exchange.calls[0].result or "")) is stopped
    assert (await only_turn(world, session_id)).content.endswith("Raft.")
    assert (await replay(await world.log(session_id), ADA, world.agents, max_takeovers=5)).identical


async def test_of_a_tool_that_never_stops_showing_a_part_is_kept() -> None:
    world, session_id = await asked([call("search", q="raft")], "Raft.")
    world.tools.shows = {"search": [ToolShown("stdout", "x" * 1000) for _ in range(100)]}

    await world.drive()

    shown = await events(world, session_id, "tool_progressed")
    assert sum(len(one.text) for one in shown) == 65_536


async def test_large_things_a_tool_left_stand_in_the_log_by_reference_and_replay() -> None:
    world, session_id = await asked([call("search", q="raft")], "Raft.")
    left = turn_pb2.LeftArtefact(invocation_id="inv_1", name="plot.png", size=9_000_000, sha256="ab")
    world.tools.leaves = {"search": [left]}

    await world.drive()

    (finished,) = await events(world, session_id, "tool_finished")
    assert list(finished.outcome.artefacts) == [left]
    assert (await replay(await world.log(session_id), ADA, world.agents, max_takeovers=5)).identical
