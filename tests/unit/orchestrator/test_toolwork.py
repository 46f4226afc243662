"""Turns that call tools: at the same time, once each whatever dies, refused without harm, and no longer than allowed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agentnet.inference.v1 import generation_pb2, message_pb2
from agentnet.orchestrator.v1 import agent_pb2, event_pb2, input_pb2, session_pb2, turn_pb2
from services.orchestrator import toolwork
from services.orchestrator.errors import InputNotFound, SessionEnded
from services.orchestrator.peers import ToolShown, Utterance
from services.orchestrator.replays.replay import replay
from services.orchestrator.state import SessionState, fold
from shared import telemetry
from shared.errors import FieldRequired, PermissionDenied, Reason, Unavailable
from shared.paging import Page
from tests.support.mortal import Fate, Killed, Moment, MortalStore, MortalTail
from tests.support.orchestrator import ADA, TENANT, TTL, ScriptedInference, Watching, World, driving


def call(tool: str, **arguments: Any) -> message_pb2.ToolCall:
    return message_pb2.ToolCall(id=f"model_{tool}", name=tool, arguments=json.dumps(arguments))


def script(*steps: str | list[message_pb2.ToolCall]) -> Any:
    """One answer for each iteration of a turn; the last one from then on."""

    def reply(utterance: Utterance) -> str | list[message_pb2.ToolCall]:
        return steps[min(len(utterance.exchanges), len(steps) - 1)]

    return reply


async def asked(
    *steps: str | list[message_pb2.ToolCall],
    tools: tuple[str, ...] = ("search", "book"),
    stop_tools_when: dict[str, str] | None = None,
    **parts: Any,
) -> tuple[World, str]:
    """A session of Clio, who may search, book and ask a person."""
    world = World()
    world.inference = ScriptedInference(reply=script(*steps))
    clio = agent_pb2.Agent(
        name="Clio", version="1.0.0", system_prompt="You look things up.", state=agent_pb2.AGENT_STATE_ACTIVE,
        tools=tools, functions=["ask_human"],
        stop_tools_when=stop_tools_when,
    )  # fmt: skip
    await world.agents.create(TENANT, clio)
    session_id = await world.start(agents=["Clio"], mode="single", max_rounds=1, **parts)
    return world, session_id


async def only_turn(world: World, session_id: str) -> Any:
    (turn,) = await world.store.turns(TENANT, session_id, agent="", round_number=0, page=Page())
    return turn


async def events(world: World, session_id: str, kind: str) -> list[Any]:
    return [getattr(event, kind) for event in await world.log(session_id) if event.WhichOneof("payload") == kind]


TWO = [call("search", q="raft"), call("search", q="paxos")]


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
    assert (await world.find(session_id)).cost_micros_usd == 7 + 7 + 7


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


async def test_an_agent_asks_a_person_nobody_runs_meanwhile_and_the_answer_is_its_result() -> None:
    world, session_id = await asked([call("ask_human", question="Which city?"), call("search", q="x")], "Rome it is.")

    await world.drive()

    waiting = await world.find(session_id)
    assert waiting.status == session_pb2.SESSION_STATUS_AWAITING_INPUT
    assert await world.leases.claim("two", ttl=TTL, limit=9) == []
    (wanted,) = await world.inputs.every(TENANT, session_id)
    assert (wanted.question, wanted.agent, wanted.kind) == ("Which city?", "Clio@1.0.0", input_pb2.INPUT_KIND_QUESTION)
    assert world.tools.done == ['search {"q": "x"}']

    await give(world, session_id, wanted.id, answer="Rome")
    await world.drive("two")

    results = [one.result for one in world.inference.started[1].exchanges[0].calls]
    assert results == ["Rome", "search found it."]
    assert (await world.find(session_id)).status == session_pb2.SESSION_STATUS_COMPLETED
    assert list((await world.find(session_id)).inputs) == []


async def give(world: World, session_id: str, input_id: str, **parts: Any) -> Any:
    given = {"answer": "", "approved": False, "request_id": None, **parts}
    return await world.inputs.give(ADA, session_id, input_id, **given)


@pytest.mark.parametrize(("approved", "done"), [(True, ['book {"seat": 1}']), (False, [])])
async def test_a_call_that_needs_approval_waits_for_it(approved: bool, done: list[str]) -> None:
    world, session_id = await asked([call("book", seat=1)], "So be it.", require_approval=["book"])
    await world.drive()
    (wanted,) = await world.inputs.every(TENANT, session_id)
    assert (wanted.kind, wanted.tool, wanted.arguments) == (input_pb2.INPUT_KIND_APPROVAL, "book", '{"seat": 1}')
    assert world.tools.done == []

    await give(world, session_id, wanted.id, approved=approved, answer="Too dear.")
    await world.drive("two")

    assert world.tools.done == done
    result = world.inference.started[1].exchanges[0].calls[0].result or ""
    assert result == ("book found it." if approved else "TOOL_NOT_ALLOWED: a person refused the call: Too dear.")


async def test_every_tool_may_need_approval() -> None:
    world, session_id = await asked([call("search", q="x"), call("book", seat=1)], "Done.", require_approval=["*"])
    await world.drive()

    assert [one.tool for one in await world.inputs.every(TENANT, session_id)] == ["search", "book"]


async def test_an_answer_counts_once_and_only_for_what_is_asked() -> None:
    world, session_id = await asked([call("ask_human", question="Which?")], "Done.")
    await world.drive()
    (wanted,) = await world.inputs.every(TENANT, session_id)

    with pytest.raises(InputNotFound):
        await give(world, session_id, "inp_other", answer="x")
    with pytest.raises(FieldRequired):
        await give(world, session_id, wanted.id)
    await give(world, session_id, wanted.id, answer="first", request_id="r1")
    await give(world, session_id, wanted.id, answer="second", request_id="r2")
    await world.drive("two")

    assert world.inference.started[1].exchanges[0].calls[0].result == "first"
    with pytest.raises(SessionEnded):
        await give(world, session_id, wanted.id, answer="late")


async def test_a_session_that_waits_for_a_person_can_be_cancelled() -> None:
    world, session_id = await asked([call("ask_human", question="Which?")], "Done.")
    await world.drive()
    await world.signal(session_id, "cancel")

    await world.drive("two")

    assert (await world.find(session_id)).status == session_pb2.SESSION_STATUS_CANCELLED


async def test_others_speak_on_while_one_waits_for_a_person() -> None:
    world = World()
    clio = agent_pb2.Agent(
        name="Clio", version="1.0.0", system_prompt="x", state=agent_pb2.AGENT_STATE_ACTIVE, functions=["ask_human"]
    )
    await world.agents.create(TENANT, clio)
    world.inference.reply = lambda utterance: (
        [call("ask_human", question="Which?")]
        if utterance.agent.name == "Clio" and not utterance.exchanges
        else "Done."
    )
    session_id = await world.start(agents=["Clio", "Athena"], strategy="parallel", max_rounds=1)
    await world.drive()
    turns_done = await world.store.turns(TENANT, session_id, agent="", round_number=0, page=Page())
    assert [turn.agent for turn in turns_done] == ["Athena@1.0.0"]

    (wanted,) = await world.inputs.every(TENANT, session_id)
    await give(world, session_id, wanted.id, answer="This.")
    await world.drive("two")

    assert (await world.find(session_id)).status == session_pb2.SESSION_STATUS_COMPLETED


async def test_what_a_person_says_is_read_from_the_next_turn_on() -> None:
    world = World()
    session_id = await world.start(max_rounds=2, manual_advance=True)
    await world.drive()
    await world.inputs.say(ADA, session_id, "Mind the cost.", request_id=None)
    await world.signal(session_id, "advance")

    await world.drive("two")

    assert "user:ada: Mind the cost." in world.inference.started[2].lines[-1].text
    (said,) = await events(world, session_id, "message_injected")
    assert (said.sender, said.content) == ("ada", "Mind the cost.")


async def test_a_message_does_not_end_a_wait() -> None:
    world = World()
    session_id = await world.start(max_rounds=2, manual_advance=True)
    await world.drive()
    await world.inputs.say(ADA, session_id, "Mind the cost.", request_id=None)

    await world.drive("two")

    assert (await world.find(session_id)).status == session_pb2.SESSION_STATUS_WAITING


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


async def test_every_prefix_of_a_turn_with_tools_folds_to_the_state_at_its_end() -> None:
    world, session_id = await asked(TWO, [call("ask_human", question="Which?")], "Done.")
    await world.drive()
    (wanted,) = await world.inputs.every(TENANT, session_id)
    await give(world, session_id, wanted.id, answer="This.")
    await world.drive("two")
    log = await world.log(session_id)

    stepwise = SessionState()
    for end, event in enumerate(log, start=1):
        stepwise = fold(stepwise, [event])
        assert stepwise == fold(SessionState(), log[:end])
    assert stepwise.finished


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
