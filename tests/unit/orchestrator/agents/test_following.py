"""Following the logs: executions, evidence, trees and news, by their keys once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from agentnet.inference.v1 import generation_pb2
from agentnet.orchestrator.v1 import (
    event_pb2,
    execution_pb2,
    reasoning_service_pb2,
    session_pb2,
    task_graph_pb2,
    turn_pb2,
)
from services.orchestrator.agents import outcome
from services.orchestrator.agents.history_store import Wanted
from services.orchestrator.agents.reputation import Evidence, nothing, of_execution, reputation
from services.orchestrator.forks.fork import Fork
from services.orchestrator.prompts import Known
from services.orchestrator.reasoning.tree import generate_reasoning_tree
from shared.errors import FailedPrecondition, Reason, Unavailable
from shared.paging import Page
from tests.support.agents import Surroundings
from tests.support.modes import ballot, scripted
from tests.support.orchestrator import ADA, TENANT, World

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
Kind = reasoning_service_pb2.ReasoningNodeKind


@pytest.fixture
def around() -> Surroundings:
    return Surroundings(World())


async def executions(around: Surroundings, name: str) -> list[execution_pb2.AgentExecution]:
    return list(await around.history.executions(TENANT, Wanted(name), page=Page()))


async def test_every_try_of_a_turn_is_an_execution(around: Surroundings) -> None:
    around.world.inference.refusals = [Unavailable("no model")]
    session_id = await around.world.start(agents=["Athena"], mode="single", max_rounds=1)
    await around.world.drive()
    await around.follow()

    good, bad = await executions(around, "Athena")
    assert (good.success, bad.success) == (True, False)
    assert (bad.attempt, good.attempt, good.session_id) == (1, 2, session_id)
    assert bad.failure.message == "no model"
    assert (good.usage.input_tokens, good.cost_micros_usd) == (10, 7)
    metrics = await around.history.metrics(
        TENANT, Wanted("Athena"), start=around.world.clock.now(), end=around.world.clock.now() + timedelta(seconds=1)
    )
    assert (metrics.calls, metrics.errors, dict(metrics.errors_by_reason)) == (2, 1, {"DEPENDENCY_UNAVAILABLE": 1})


async def test_the_nodes_of_a_graph_are_executions_too(around: Surroundings) -> None:
    await around.world.execute(task_graph_pb2.TaskNode(id="a", agent="Apollo", prompt="Ideas?"))
    await around.world.drive()
    await around.follow()
    (found,) = await executions(around, "Apollo")
    assert (found.turn_id, found.success, found.agent) == ("a", True, "Apollo@1.0.0")


async def test_what_was_said_is_remembered_again_when_following_broke_off(around: Surroundings) -> None:
    session_id = await around.world.start(agents=["Athena", "Apollo"], max_rounds=1)
    await around.world.drive()
    assert around.world.memory.kept == []
    around.herald.away = True
    with pytest.raises(Unavailable):
        await around.follow()
    around.herald.away = False
    await around.follow()
    turns = await around.world.store.turns(TENANT, session_id, agent="", round_number=0, page=Page())
    assert around.world.memory.kept == [turn.id for turn in turns] * 2


async def test_ballots_are_not_remembered(around: Surroundings) -> None:
    scripted(around.world, vote=ballot("A"))
    session_id = await around.world.start(agents=["Athena", "Apollo"], mode="consensus", max_rounds=1)
    await around.world.drive()
    await around.follow()
    turns = await around.world.store.turns(TENANT, session_id, agent="", round_number=0, page=Page(50))
    said = [turn.id for turn in turns if turn.phase != "vote"]
    assert len(said) < len(turns)
    assert sorted(around.world.memory.kept) == sorted(said)


async def test_the_bus_is_told_at_least_once_and_nothing_counts_twice(around: Surroundings) -> None:
    await around.world.start(agents=["Athena", "Apollo"], max_rounds=1)
    await around.world.drive()
    around.herald.away = True
    with pytest.raises(Unavailable):
        await around.follow()
    around.herald.away = False
    await around.follow()
    assert await around.follow() == 0

    assert around.herald.names == ["session.started", "turn.completed", "turn.completed", "session.finished"]
    tenants = {tenant for tenant, _ in around.herald.told}
    ids = [news.id for _, news in around.herald.told]
    assert tenants == {TENANT}
    assert len(set(ids)) == len(ids)
    assert around.herald.told[1][1].agent == "Athena@1.0.0"
    assert around.herald.told[-1][1].data["stop_reason"] == "max_rounds"
    (sums,) = (await around.history.evidence(TENANT, ["Athena"]))["Athena"].values()
    assert (sums.positive, sums.count) == (1, 1)


async def test_a_verdict_is_raised_as_a_violation_and_counts_against_the_agent(around: Surroundings) -> None:
    verdict = generation_pb2.PolicyVerdict(rule="no_pii", bundle="default@1.0.0", action="redact", severity="major")
    around.world.inference.interludes = [generation_pb2.GenerationEvent(verdict=verdict)]
    await around.world.start(agents=["Athena"], mode="single", max_rounds=1)
    await around.world.drive()
    await around.follow()
    assert "violation.raised" in around.herald.names
    assert list((await executions(around, "Athena"))[0].violations) == ["no_pii"]
    assert set((await around.history.evidence(TENANT, ["Athena"]))["Athena"]) == {"executions", "violations"}


async def test_pauses_and_failures_are_news(around: Surroundings) -> None:
    around.world.inference.failures = [FailedPrecondition("no", reason=Reason.ERROR_REASON_BUDGET_EXHAUSTED)]
    await around.world.start(agents=["Athena"], mode="single", max_rounds=1)
    await around.world.drive()
    await around.follow()
    assert around.herald.names == ["session.started", "agent.error", "session.finished", "budget.exhausted"]


async def test_the_tree_holds_what_the_turn_held(around: Surroundings) -> None:
    around.world.memory.known = (Known("mem_1", "Two zones.", 0.8),)
    session_id = await around.world.start(max_rounds=1)
    await around.world.drive()
    before, _ = await around.side.history.graph(TENANT, session_id)
    await around.follow()
    after, edges = await around.side.history.graph(TENANT, session_id)

    assert list(before) == list(after), "what is kept is what the log says"
    first, second = after
    assert [node.kind for node in first.nodes] == [
        Kind.Value(f"REASONING_NODE_KIND_{name}")
        for name in ("QUESTION", "MEMORY", "ANSWER", "STYLE", "STYLE", "STYLE", "STEP")
    ]
    assert first.nodes[1].source == "mem_1"
    assert first.nodes[0].text == "The topic is: Zero-loss failover. Give your idea."
    (turn, _) = [
        event.turn_finished.turn for event in await around.world.log(session_id) if event.HasField("turn_finished")
    ]
    assert [node.text for node in first.nodes[3:6]] == list(turn.style_insights)
    assert turn.style_insights[2] == "logic 0.9: 0 words of reasoning in 1 sentences"
    assert first.nodes[6].text == "Athena has one idea about it."
    assert (edges[0].from_turn_id, edges[0].to_turn_id, edges[0].kind) == (first.turn_id, second.turn_id, "read")
    assert first.confidence_basis == "evidence"
    assert first.factors["memory"] == pytest.approx(0.8)
    assert first.confidence == pytest.approx(sum(first.factors.values()) / len(first.factors))
    assert first.confidence == pytest.approx(turn.confidence)


async def test_what_was_copied_counted_where_it_happened(around: Surroundings) -> None:
    world = around.world
    session_id = await world.start(agents=["Athena"], mode="single", max_rounds=1)
    await world.drive()
    await around.follow()
    (only,) = await executions(around, "Athena")
    told = len(around.herald.told)

    document = await world.histories.export(TENANT, session_id)
    taken_in = await world.histories.take_in(ADA, document, request_id=None)
    await around.follow()
    assert await executions(around, "Athena") == [only]
    assert len(around.herald.told) == told
    trees, _ = await around.side.history.graph(TENANT, taken_in.id)
    assert [tree.session_id for tree in trees] == [taken_in.id]

    forked = await world.histories.fork(
        ADA, session_id, Fork(0, session_pb2.SessionOverrides(), side_effects=False), request_id=None
    )
    await world.drive()
    await around.follow()
    assert await executions(around, "Athena") == [only]
    assert around.herald.names[told:] == ["session.started", "session.finished"]
    assert {news.session_id for _, news in around.herald.told[told:]} == {forked.id}


async def test_calls_of_tools_count_by_what_joins_their_end_to_their_start() -> None:
    call = turn_pb2.ToolCallMade(request_id="eff_1", tool="search")
    start = event_pb2.SessionEvent(sequence=1)
    start.turn_started.turn_id, start.turn_started.attempt = "trn_1", 1
    began = event_pb2.SessionEvent(sequence=2)
    began.tool_started.CopyFrom(event_pb2.ToolStarted(turn_id="trn_1", tool="search", call=call))
    ended = event_pb2.SessionEvent(sequence=3)
    ended.tool_finished.CopyFrom(event_pb2.ToolFinished(turn_id="trn_1", invocation_id="inv_1", call=call))
    last = event_pb2.SessionEvent(sequence=4)
    last.turn_finished.turn.CopyFrom(turn_pb2.Turn(id="trn_1", agent="Athena@1.0.0", attempt=1))
    for place, event in enumerate((start, began, ended, last)):
        event.time.FromDatetime(NOON + timedelta(seconds=place))

    found = outcome.execution([start, began, ended, last])

    assert found is not None
    assert [(tally.tool, tally.calls, tally.elapsed.seconds) for tally in found.tools] == [("search", 1, 1)]
    (news,) = outcome.news([start, began, ended])
    assert news.data["tool"] == "search"
    tree = generate_reasoning_tree(last.turn_finished.turn, [start, began, ended, last])
    assert [
        (node.source, node.score) for node in tree.nodes if node.kind == reasoning_service_pb2.REASONING_NODE_KIND_TOOL
    ] == [("eff_1", 1.0)]


def test_evidence_fades_and_is_explained() -> None:
    sums = nothing(NOON)
    for _ in range(10):
        sums = sums.with_(Evidence("executions", 1, 1, NOON))
    fresh = reputation("Athena", {"executions": sums}, NOON)
    later = reputation("Athena", {"executions": sums}, NOON + timedelta(days=30))
    unknown = reputation("Athena", {}, NOON)
    assert fresh.score == pytest.approx(12 / 14)
    assert later.score == pytest.approx(7 / 9)
    assert (unknown.score, unknown.factors[0].source) == (0.5, "prior")
    assert fresh.uncertainty < unknown.uncertainty
    assert (fresh.factors[0].source, fresh.factors[0].count) == ("executions", 10)
    assert fresh.factors[0].effect == pytest.approx(12 / 14 - 0.5)


def test_evidence_that_comes_late_counts_as_if_it_had_come_in_time() -> None:
    early, late = Evidence("user", 1, 1, NOON), Evidence("user", 0, 1, NOON + timedelta(days=60))
    in_order = nothing(NOON).with_(early).with_(late)
    turned = nothing(late.at).with_(late).with_(early)
    assert (in_order.positive, in_order.negative) == pytest.approx((turned.positive, turned.negative))


def test_only_what_an_agent_can_be_blamed_for_counts_against_it() -> None:
    def failed(error: FailedPrecondition | Unavailable) -> execution_pb2.AgentExecution:
        return execution_pb2.AgentExecution(failure=error.failure())

    assert of_execution(failed(Unavailable("away")), NOON) == []
    budget = FailedPrecondition("no money", reason=Reason.ERROR_REASON_BUDGET_EXHAUSTED)
    assert of_execution(failed(budget), NOON) == []
    output = FailedPrecondition("no JSON", reason=Reason.ERROR_REASON_OUTPUT_INVALID)
    assert [found.score for found in of_execution(failed(output), NOON)] == [0]


async def test_calls_that_a_breaker_refused_count_as_such_in_the_metrics(around: Surroundings) -> None:
    events = [event_pb2.SessionEvent(sequence=1, session_id="ses_1")]
    events[0].turn_started.turn_id, events[0].turn_started.attempt = "trn_1", 1
    reasons = (Reason.ERROR_REASON_TOOL_CIRCUIT_OPEN, Reason.ERROR_REASON_TOOL_FAILED, Reason.ERROR_REASON_UNSPECIFIED)
    for place, reason in enumerate(reasons):
        call = turn_pb2.ToolCallMade(request_id=f"eff_{place}", tool="search")
        began = event_pb2.ToolStarted(turn_id="trn_1", tool="search", call=call)
        ended = event_pb2.ToolFinished(turn_id="trn_1", invocation_id=f"inv_{place}", call=call)
        ended.failure.reason = reason
        events += [event_pb2.SessionEvent(tool_started=began), event_pb2.SessionEvent(tool_finished=ended)]
    events.append(event_pb2.SessionEvent(session_id="ses_1"))
    events[-1].turn_finished.turn.CopyFrom(turn_pb2.Turn(id="trn_1", agent="Athena@1.0.0", attempt=1))
    for place, event in enumerate(events):
        event.sequence = place + 1
        event.time.FromDatetime(NOON + timedelta(seconds=place))
    found = outcome.execution(events)
    assert found is not None
    await around.side.history.store.keep(TENANT, [(found, [])])
    wanted = Wanted("Athena")
    metrics = await around.side.history.metrics(TENANT, wanted, start=NOON, end=NOON + timedelta(hours=1))
    (tally,) = metrics.tools
    assert (tally.calls, tally.failures, tally.breaker_refusals) == (3, 2, 1)


async def test_what_a_broken_try_spent_is_its_own_and_counted_once(around: Surroundings) -> None:
    around.world.inference.failures = [Unavailable("no model")]
    await around.world.start(agents=["Athena"], mode="single", max_rounds=1)
    await around.world.drive()
    around.world.inference.failures = [Unavailable("no model")]
    await around.world.execute(task_graph_pb2.TaskNode(id="a", agent="Apollo", prompt="Ideas?", max_attempts=2))
    await around.world.drive()
    await around.follow()

    for agent in ("Athena", "Apollo"):
        found = await executions(around, agent)
        assert [(one.success, one.cost_micros_usd, one.usage.input_tokens) for one in found] == [
            (True, 7, 10),
            (False, 7, 10),
        ]
