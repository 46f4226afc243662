"""A planner's answer as a part of its graph."""

from __future__ import annotations

import json

import pytest

from agentnet.orchestrator.v1 import task_graph_pb2
from services.orchestrator.errors import GraphInvalid
from services.orchestrator.graphs import planning
from shared.errors import Reason
from tests.support.graphs import Play, node

PLANNER = task_graph_pb2.TASK_KIND_PLANNER


PLAN = {"nodes": [
    {"id": "left", "prompt": "l", "agent": "Athena", "depends_on": []},
    {"id": "right", "prompt": "r", "agent": "Apollo", "depends_on": []},
    {"id": "join", "prompt": "j", "agent": "Athena", "depends_on": ["left", "right"]},
]}  # fmt: skip


def test_a_planners_answer_grows_the_graph_before_what_depends_on_it() -> None:
    answer = f"Here it is:\n```json\n{json.dumps(PLAN)}\n```"
    play = Play(
        [node("plan", kind=PLANNER), node("end", "plan")], script=lambda name, agent: answer if name == "plan" else name
    )
    play.run()
    assert play.begun == ["plan:Athena", "plan-left:Athena", "plan-right:Apollo", "plan-join:Athena", "end:Athena"]
    assert play.state.depends_on["end"] == ("plan", "plan-join")
    assert play.state.results["end"].status == task_graph_pb2.TASK_STATUS_COMPLETED


@pytest.mark.parametrize(
    "answer",
    ["no plan", "{}", '[{"id": "a", "prompt": "p", "agent": "Zeus", "depends_on": []}]',
     '[{"id": "a", "prompt": "p", "agent": "Athena", "depends_on": ["end"]}]', '{"nodes": [', "[" * 100_000],
)  # fmt: skip
def test_a_planner_that_answers_no_valid_plan_is_asked_again_and_then_fails(answer: str) -> None:
    play = Play([node("plan", kind=PLANNER), node("end", "plan")], script=lambda name, agent: answer)
    play.run()
    assert play.begun == ["plan:Athena"] * 3
    assert play.state.results["plan"].failure.reason == Reason.ERROR_REASON_TASK_OUTPUT_INVALID
    assert play.status("end") == "SKIPPED"


def test_a_plan_may_lean_on_what_is_there() -> None:
    plan = [
        {"id": "more", "prompt": "p", "agent": "Athena", "depends_on": ["base"], "kind": "worker", "condition": "true"}
    ]
    play = Play([node("base"), node("plan", "base", kind=PLANNER)], script=lambda name, agent: json.dumps(plan))
    play.run()
    assert play.state.depends_on["plan-more"] == ("base",)
    assert play.ended == "COMPLETED"


def test_the_plans_schema_and_instructions_name_the_agents_and_the_limit() -> None:
    from agentnet.orchestrator.v1 import agent_pb2

    told = planning.instructions(
        "Win",
        [
            agent_pb2.Agent(name="Athena", description="Thinks."),
            agent_pb2.Agent(name="Apollo", capabilities=["ideas"]),
            agent_pb2.Agent(name="Pan"),
        ],
        max_nodes=4,
    )
    assert all(
        part in told
        for part in (
            "Goal: Win",
            "- Athena: Thinks.",
            "- Apollo: ideas",
            "- Pan: no description",
            '"maxItems":4',
            '"enum":["Athena","Apollo","Pan"]',
        )
    )
    assert len(planning.read(json.dumps(PLAN), ["Athena", "Apollo"], max_nodes=3)) == 3
    held = planning.form(["Athena", "Apollo"], max_nodes=3)
    assert held.read(json.dumps(PLAN)) == PLAN
    assert "maxLength" not in held.instruction(), "a grammar of thirty thousand repetitions is none"
    with pytest.raises(GraphInvalid) as raised:
        planning.read(json.dumps(PLAN), ["Athena", "Apollo"], max_nodes=2)
    assert raised.value.facts["path"] == "$.nodes"
    assert raised.value.message in planning.repair("x", raised.value)
