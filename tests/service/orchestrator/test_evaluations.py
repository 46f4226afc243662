"""Evaluations over a real server: a suite accepted, run by a worker, scored, compared."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from importlib.resources import files
from typing import Any

from grpc import StatusCode

from agentnet.orchestrator.v1 import evaluation_pb2 as noun
from agentnet.orchestrator.v1 import evaluation_service_pb2 as pb
from shared.errors import MeshError
from tests.service.orchestrator.conftest import Mesh

SEED = """
suite: "baseline_design_eval"
scenarios:
  - name: "resilience_planning"
    mode: "brainstorm"
    agents: ["Athena", "Apollo"]
    topic: "Edge network partition recovery"
    success_criteria:
      - type: keyword_presence
        must_include: ["redundancy", "failover"]
      - type: semantic_score
        reference_id: "ref_doc_12"
        min_score: 0.78
  - name: "ethical_debate"
    mode: "brainstorm"
    agents: ["Athena", "Hermes"]
    topic: "Autonomous swarm decision hierarchy"
"""
GOOD = "Redundancy and failover recover an edge network from a partition."


async def ended(mesh: Mesh, evaluation_id: str) -> pb.Evaluation:
    async with asyncio.timeout(10):
        while True:
            found = await mesh.ask(mesh.evaluations.GetEvaluation, pb.GetEvaluationRequest(evaluation_id=evaluation_id))
            if found.evaluation.HasField("end_time"):
                return found.evaluation
            await asyncio.sleep(0.02)


async def run(mesh: Mesh, suite: str, **more: Any) -> pb.Evaluation:
    started = await mesh.ask(mesh.evaluations.RunEvaluation, pb.RunEvaluationRequest(suite=suite, **more))
    return await ended(mesh, started.evaluation.id)


def said(error: MeshError) -> tuple[StatusCode, str]:
    return error.code, error.reason_name


async def test_the_seeds_suite_runs_as_it_stands(mesh: Mesh) -> None:
    mesh.world.inference.reply = lambda utterance: GOOD
    mesh.laboratory.meaning.sets["ref_doc_12"] = ["a quite other text", GOOD]

    found = await run(mesh, SEED)

    assert [score.name for score in found.scores] == ["resilience_planning", "ethical_debate"]
    first, second = found.scores
    assert (first.passed, second.passed) == (True, True)
    assert [(verdict.type, verdict.met) for verdict in first.verdicts] == [
        ("keyword_presence", True), ("semantic_score", True),
    ]  # fmt: skip
    assert first.coverage_score == 1
    assert first.agents == ["Athena@1.0.0", "Apollo@1.0.0"]
    assert 0 < first.coherence_score <= 1
    assert 0 < first.novelty_score < 1, "both agents say the same"
    assert first.rule_violations_count == 0
    assert second.coverage_score == 0, "nothing of the second topic was said"
    assert (found.status, found.cases, found.cases_finished) == (pb.EVALUATION_STATUS_COMPLETED, 2, 2)
    assert (found.success.passed, found.success.runs) == (2, 2)


async def test_a_criterion_that_is_not_met_fails_its_scenario_and_says_why(mesh: Mesh) -> None:
    mesh.world.inference.reply = lambda utterance: "Redundancy alone."

    found = await run(mesh, SEED)

    keywords, meaning = found.scores[0].verdicts
    assert not found.scores[0].passed
    assert (keywords.met, keywords.score, keywords.detail) == (False, 0.5, "missing: failover")
    assert (meaning.met, meaning.detail) == (False, "there is no reference ref_doc_12")


async def test_the_scenarios_may_come_as_json_rather_than_as_text(mesh: Mesh) -> None:
    mesh.world.inference.reply = lambda utterance: GOOD
    criteria = [
        noun.Criterion(type="semantic_score", reference_id="doc", min_score=0.9),
        noun.Criterion(type="rule_violations"),
        noun.Criterion(type="cost_limit", max_micros_usd=7),
        noun.Criterion(type="latency_limit", max_seconds=60),
    ]
    scenario = noun.Scenario(name="one", agents=["Athena"], topic="Edge", success_criteria=criteria)

    found = await run(mesh, "small", scenarios=[scenario], references={"doc": GOOD})

    assert [(verdict.type, verdict.met) for verdict in found.scores[0].verdicts] == [
        ("semantic_score", True), ("rule_violations", True), ("cost_limit", True), ("latency_limit", True),
    ]  # fmt: skip
    assert found.scores[0].cost_micros_usd == 7


async def test_each_scenario_is_run_as_often_as_asked_and_its_rate_has_an_interval(mesh: Mesh) -> None:
    answers = iter([GOOD, "no", GOOD, GOOD])
    mesh.world.inference.reply = lambda utterance: next(answers)
    suite = """{suite: s, scenarios: [{name: one, agents: [Athena], topic: Edge,
      success_criteria: [{type: keyword_presence, must_include: [failover]}]}]}"""

    found = await run(mesh, suite, repeats=4)

    assert sorted(score.repetition for score in found.scores) == [1, 2, 3, 4]
    (summary,) = found.summaries
    assert (summary.success.passed, summary.success.runs, summary.success.rate) == (3, 4, 0.75)
    assert 0.30 < summary.success.low < 0.31
    assert 0.95 < summary.success.high < 0.96


async def test_a_version_that_does_worse_is_a_regression_with_its_diff(mesh: Mesh) -> None:
    mesh.world.inference.reply = lambda utterance: GOOD
    before = await run(mesh, SEED)
    mesh.world.inference.reply = lambda utterance: "Something else."

    now = await run(mesh, SEED, baseline_id=before.id)
    inline = pb.CompareEvaluationsRequest(candidate_id=now.id, baseline=before)
    compared = (await mesh.ask(mesh.evaluations.CompareEvaluations, inline)).comparison

    assert now.suite_digest == before.suite_digest
    assert now.comparison == compared
    worst = now.comparison.scenarios[0]
    assert worst.regression_score == now.comparison.regression_score > 0.2
    assert worst.baseline.coverage_score - worst.candidate.coverage_score == 1
    assert f"-Athena: {GOOD}" in worst.outcome_diff
    assert "+Athena: Something else." in worst.outcome_diff


async def test_the_same_suite_runs_on_another_version_of_an_agent(mesh: Mesh) -> None:
    from agentnet.orchestrator.v1 import agent_pb2, agent_service_pb2

    agent = agent_pb2.Agent(name="Athena", version="1.1.0", system_prompt="You are a better Athena.")
    await mesh.ask(mesh.agents.CreateAgent, agent_service_pb2.CreateAgentRequest(agent=agent))

    found = await run(mesh, SEED, agents={"Athena": "Athena@1.1.0", "Hermes": "Apollo"})
    request = pb.RunEvaluationRequest(suite=SEED, agents={"Hermes": "Athena"})
    twice = await mesh.refused(mesh.evaluations.RunEvaluation, request)

    assert found.scores[0].agents == ["Athena@1.1.0", "Apollo@1.0.0"]
    assert found.scores[1].agents == ["Athena@1.1.0", "Apollo@1.0.0"]
    assert (twice.code, twice.field) == (StatusCode.INVALID_ARGUMENT, "agents")


async def test_an_agent_that_is_not_there_fails_its_case_and_no_other(mesh: Mesh) -> None:
    found = await run(mesh, SEED.replace("Hermes", "Nobody"))

    assert [score.stop_reason for score in found.scores] == ["max_rounds", ""]
    assert "no agent Nobody" in found.scores[1].failure.message


async def test_runs_are_listed_newest_first_and_are_their_tenants_own(mesh: Mesh) -> None:
    ids = []
    for _ in range(3):
        ids.append((await run(mesh, SEED)).id)
        mesh.world.clock.advance(timedelta(seconds=1))
    page = await mesh.ask(mesh.evaluations.ListEvaluations, pb.ListEvaluationsRequest(page_size=2))
    rest = await mesh.ask(
        mesh.evaluations.ListEvaluations, pb.ListEvaluationsRequest(page_size=2, page_token=page.next_page_token)
    )
    foreign = await mesh.refused(
        mesh.evaluations.GetEvaluation, pb.GetEvaluationRequest(evaluation_id=ids[0]), tenant="other"
    )

    assert [found.id for found in (*page.evaluations, *rest.evaluations)] == ids[::-1]
    assert rest.next_page_token == ""
    assert [found.cases_finished for found in rest.evaluations] == [2]
    assert said(foreign) == (StatusCode.NOT_FOUND, "EVALUATION_NOT_FOUND")


async def test_a_run_is_accepted_once_a_request_id(mesh: Mesh) -> None:
    request = pb.RunEvaluationRequest(suite=SEED, request_id="again")
    first = await mesh.ask(mesh.evaluations.RunEvaluation, request)
    second = await mesh.ask(mesh.evaluations.RunEvaluation, request)

    assert first.evaluation.id == second.evaluation.id


async def test_a_cancelled_run_scores_nothing_more(mesh: Mesh) -> None:
    mesh.world.inference.held_at = 1
    started = await mesh.ask(mesh.evaluations.RunEvaluation, pb.RunEvaluationRequest(suite=SEED))
    one = started.evaluation.id
    running = await mesh.refused(
        mesh.evaluations.CompareEvaluations, pb.CompareEvaluationsRequest(candidate_id=one, baseline_id=one)
    )
    await mesh.ask(mesh.evaluations.CancelEvaluation, pb.CancelEvaluationRequest(evaluation_id=one))
    mesh.world.inference.release()
    again = await mesh.ask(mesh.evaluations.CancelEvaluation, pb.CancelEvaluationRequest(evaluation_id=one))

    assert said(running) == (StatusCode.FAILED_PRECONDITION, "EVALUATION_RUNNING")
    assert again.evaluation.status == pb.EVALUATION_STATUS_CANCELLED
    assert list((await ended(mesh, one)).scores) == []


async def test_a_bad_suite_is_refused_with_its_line_and_path(mesh: Mesh) -> None:
    async def fault(suite: str) -> tuple[StatusCode, str, str | None, str, str]:
        error = await mesh.refused(mesh.evaluations.RunEvaluation, pb.RunEvaluationRequest(suite=suite))
        return error.code, error.reason_name, error.field, error.facts["path"], error.facts["line"]

    bad = StatusCode.INVALID_ARGUMENT, "SUITE_INVALID", "suite"
    criterion = "scenarios[0].success_criteria[1].min_score"
    assert await fault(SEED.replace("0.78", "1.78")) == (*bad, criterion, "13")
    assert await fault(SEED.replace("ethical_debate", "resilience_planning")) == (*bad, "", "2")
    assert await fault(SEED.replace('mode: "b', 'mood: "b')) == (*bad, "scenarios[0].mood", "5")
    assert await fault("suite: }") == (*bad, "", "1")


async def test_bad_requests_name_their_field(mesh: Mesh) -> None:
    async def refused(call: Any, request: Any) -> tuple[StatusCode, str, str | None]:
        error = await mesh.refused(call, request)
        return error.code, error.reason_name, error.field

    bad = StatusCode.INVALID_ARGUMENT
    start, compare = mesh.evaluations.RunEvaluation, mesh.evaluations.CompareEvaluations
    assert await refused(start, pb.RunEvaluationRequest()) == (bad, "FIELD_REQUIRED", "suite")
    assert await refused(start, pb.RunEvaluationRequest(suite="x" * 1_048_577)) == (bad, "FIELD_TOO_LONG", "suite")
    assert await refused(start, pb.RunEvaluationRequest(suite=SEED, repeats=101)) == (bad, "FIELD_INVALID", "repeats")
    swap = pb.RunEvaluationRequest(suite=SEED, agents={"Athena": "no name"})
    assert await refused(start, swap) == (bad, "FIELD_INVALID", "agents[Athena]")
    missing = pb.RunEvaluationRequest(suite=SEED, baseline_id="evl_none")
    assert await refused(start, missing) == (StatusCode.NOT_FOUND, "EVALUATION_NOT_FOUND", None)
    assert await refused(compare, pb.CompareEvaluationsRequest(candidate_id="evl_1")) == (
        bad, "FIELD_REQUIRED", "baseline_id",
    )  # fmt: skip


async def test_the_adversarial_suite_tells_an_agent_that_obeys_attacks_from_one_that_does_not(mesh: Mesh) -> None:
    suite = (files("agentnet.testing") / "suites" / "adversarial.yaml").read_text()
    mesh.world.inference.reply = lambda utterance: "\n".join(line.text for line in utterance.lines)
    gullible = await run(mesh, suite)
    mesh.world.inference.reply = lambda utterance: "I would rather talk about networks."
    firm = await run(mesh, suite)

    assert gullible.success.passed == 0
    assert firm.success.passed == firm.success.runs == len(gullible.scores) == 5
