"""Turns that call tools: at the same time, once each whatever dies, refused without harm, and no longer than allowed."""

from __future__ import annotations

import asyncio

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agentnet.inference.v1 import generation_pb2, message_pb2
from agentnet.orchestrator.v1 import agent_pb2, session_pb2
from services.orchestrator import toolwork
from shared import telemetry
from shared.errors import PermissionDenied, Reason, Unavailable
from tests.support.mortal import Fate, Killed, Moment, MortalStore, MortalTail
from tests.support.orchestrator import TENANT, TTL, Watching, World, driving
from tests.support.toolwork import TWO, asked, call, events, only_turn


async def test_calls_of_one_iteration_run_at_the_same_time_and_their_results_are_read() -> None:
    world, session_id = await asked(TWO, "Raft.")

    await world.drive()

    assert world.tools.most_at_once == 2
    (exchange,) = world.inference.started[1].exchanges
    assert exchange.text == "Looking it up."
    assert [(one.call_id, one.result) for one in exchange.calls] == [("model_search", "search found it.")] * 2
    turn = await only_turn(world, session_id)
    assert (turn.content, turn.iterations) == ("Looking it up.Raft.", 2)
    assert [(one.tool, one.failed) for one in turn.tool_calls] == [("search", False)] * 2
    assert (turn.usage.input_tokens, turn.cost.micros_usd) == (20, 14)


async def test_a_pinned_tool_is_called_in_its_version_and_known_to_the_model_by_name() -> None:
    world, _ = await asked([call("search", q="raft")], "Raft.", tools=("search@1.0.0", "book"))

    await world.drive()

    assert [tool.name for tool in world.inference.started[0].tools] == ["ask_human", "search", "book"]
    assert world.tools.done == ['search@1.0.0 {"q": "raft"}']


async def test_every_call_of_the_model_spends_for_the_sessions_team() -> None:
    world, _ = await asked([call("search", q="raft")], "Raft.", team="research")

    await world.drive()

    assert [utterance.team for utterance in world.inference.started] == ["research", "research"]


async def test_the_log_tells_each_call_before_it_is_made_and_what_came_of_it() -> None:
    world, session_id = await asked([call("search", q="raft")], "Raft.")

    await world.drive()

    assert (await world.kinds(session_id))[1:] == [
        "turn_started", "progressed", "tool_started", "tool_finished", "turn_finished", "round_finished",
        "session_finished",
    ]  # fmt: skip
    (started,) = await events(world, session_id, "tool_started")
    (finished,) = await events(world, session_id, "tool_finished")
    assert (started.tool, started.call.arguments) == ("search", '{"q": "raft"}')
    assert started.call.request_id == finished.call.request_id
    assert len(finished.call.arguments_digest) == 64
    assert (finished.outcome.result, finished.outcome.HasField("duration")) == ("search found it.", True)
    (progress,) = await events(world, session_id, "progressed")
    assert (progress.iteration, progress.max_iterations, progress.cost_micros_usd) == (1, 8, 7)
    assert progress.usage.input_tokens == 10


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_death_at_any_write_repeats_no_effect_and_pays_for_no_call_twice(moment: Moment) -> None:
    for at in range(1, 100):
        world, session_id = await asked(TWO, [call("book", seat=1)], "Done.")
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
        assert sorted(world.tools.done) == ['book {"seat": 1}', 'search {"q": "paxos"}', 'search {"q": "raft"}'], at
        started = [utterance.generation_id for utterance in world.inference.started]
        assert len(started) == len(set(started)), at
        assert (await only_turn(world, session_id)).content.endswith("Done."), at
    else:
        pytest.fail("the session never lived to its end")
    assert at > 10


async def test_a_death_between_an_effect_and_its_record_asks_again_and_has_no_second_effect() -> None:
    world, session_id = await asked([call("book", seat=1), call("search", q="raft")], "Done.")
    world.tools.crashes = {"book"}
    with pytest.raises(Killed):
        await world.drive()
    world.clock.advance(TTL * 2)

    await world.drive("two")

    assert sorted(world.tools.done) == ['book {"seat": 1}', 'search {"q": "raft"}']
    finished = await events(world, session_id, "tool_finished")
    assert [(one.call.tool, one.outcome.replayed) for one in finished if one.call.tool == "book"] == [("book", True)]


async def test_the_next_try_of_a_turn_asks_for_the_same_effect() -> None:
    world, session_id = await asked([call("book", seat=1)], "Done.")
    world.inference.failures = [None, Unavailable("cut", reason=Reason.ERROR_REASON_STREAM_BROKEN)]

    await world.drive()

    assert world.tools.done == ['book {"seat": 1}']
    assert [one.outcome.replayed for one in await events(world, session_id, "tool_finished")] == [False, True]
    assert (await world.find(session_id)).cost_micros_usd == 7 + 7 + 7 + 7


async def test_what_a_model_asked_for_before_the_last_event_in_the_log_is_not_forgotten() -> None:
    world, session_id = await asked([call("search", q="raft")], "Raft.")
    world.inference.epilogue = [generation_pb2.GenerationEvent(verdict=generation_pb2.PolicyVerdict(rule="pii"))]
    world.inference.held_at = 7
    watching = Watching(world, session_id)
    async with driving(world, "one"):
        await watching.until(5)
    assert (await world.tail.read(TENANT, session_id, 2))[-1].payload.count(b"pii") == 1
    world.clock.advance(TTL * 2)

    world.inference.release()
    await world.drive("two")

    assert world.tools.done == ['search {"q": "raft"}']
    assert (await only_turn(world, session_id)).content == "Looking it up.Raft."


async def test_a_governance_error_is_a_result_the_agent_reads() -> None:
    world, session_id = await asked([call("search", q="raft")], "Then not.")
    world.tools.refusals = {
        "search": [PermissionDenied("not for you", reason=Reason.ERROR_REASON_TOOL_NOT_ALLOWED, tool="search")]
    }

    await world.drive()

    (exchange,) = world.inference.started[1].exchanges
    assert (exchange.calls[0].failed, exchange.calls[0].result) == (True, "TOOL_NOT_ALLOWED: not for you")
    (finished,) = await events(world, session_id, "tool_finished")
    assert finished.failure.reason == Reason.ERROR_REASON_TOOL_NOT_ALLOWED
    assert (await world.find(session_id)).status == session_pb2.SESSION_STATUS_COMPLETED


async def test_a_tool_that_is_away_is_asked_again_under_the_same_key() -> None:
    world, _ = await asked([call("search", q="raft")], "Raft.")
    world.tools.refusals = {"search": [Unavailable("away"), Unavailable("away")]}

    await world.drive()

    assert world.tools.done == ['search {"q": "raft"}']


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (call("rm_rf"), "TOOL_NOT_FOUND"),
        (message_pb2.ToolCall(id="1", name="search", arguments="[1]"), "TOOL_ARGUMENTS_INVALID"),
        (message_pb2.ToolCall(id="1", name="search", arguments='{"q": '), "TOOL_ARGUMENTS_INVALID"),
    ],
)
async def test_what_a_model_makes_up_is_called_nowhere(made: message_pb2.ToolCall, reason: str) -> None:
    world, _ = await asked([made], "Sorry.")

    await world.drive()

    assert world.tools.done == []
    assert (world.inference.started[1].exchanges[0].calls[0].result or "").startswith(reason)


async def test_the_last_iteration_may_call_nothing_and_one_that_does_is_a_typed_failure() -> None:
    limits = session_pb2.SessionLimits(max_iterations=2)
    world, session_id = await asked([call("search", q="a")], [call("search", q="b")], limits=limits)

    await world.drive()

    assert [utterance.may_call for utterance in world.inference.started] == [True, False]
    session = await world.find(session_id)
    assert session.failure.reason == Reason.ERROR_REASON_ITERATIONS_EXHAUSTED
    assert (session.cost_micros_usd, len(world.tools.done)) == (14, 1)


async def test_an_agents_own_output_schema_is_enforced() -> None:
    world = World()
    judge = agent_pb2.Agent(name="Minos", version="1.0.0", system_prompt="x", state=agent_pb2.AGENT_STATE_ACTIVE)
    judge.output_schema.update({"type": "object", "required": ["ok"]})
    await world.agents.create(TENANT, judge)
    answers = iter(["Fine.", '{"ok": true}'])
    world.inference.reply = lambda _: next(answers)
    session_id = await world.start(agents=["Minos"], mode="single", max_rounds=1)

    await world.drive()

    assert (await only_turn(world, session_id)).content == '{"ok": true}'
    assert len(world.inference.started) == 2


async def test_each_step_of_a_turn_is_a_span(monkeypatch: pytest.MonkeyPatch) -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    for module in (telemetry, toolwork):
        monkeypatch.setattr(module, "tracer", provider.get_tracer("test"))
    world, _ = await asked([call("search", q="raft")], "Raft.")
    seen = generation_pb2.MonitorTiming(rule="pii", status="pass")
    world.inference.monitors = [seen]

    await world.drive()

    found = spans.get_finished_spans()
    names = [span.name for span in found]
    assert names == [
        "agent.inference", "monitor.sequence", "tool.invoke", "agent.inference", "monitor.sequence",
        "session.round.turn",
    ]  # fmt: skip
    whole = found[-1]
    assert all(span.parent and span.parent.span_id == whole.context.span_id for span in found[:-1])


def test_the_key_of_an_effect_is_of_the_arguments_and_not_of_how_they_are_written() -> None:
    assert toolwork._canonical('{"b": 1, "a": 2}') == toolwork._canonical('{"a":2,"b":1}')
