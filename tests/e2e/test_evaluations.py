"""Suites through the edge on the real mesh: the seed's body, the worker's own process, the gate, the client's nouns."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import httpx
import pytest

from agentnet.client import AgentNet
from agentnet.orchestrator.v1 import agent_pb2, evaluation_service_pb2
from agentnet.tools.v1 import tool_pb2
from tests.e2e.conftest import Mesh, wait_until

PLAIN = """
suite: plain
scenarios:
  - name: one
    agents: [Examinee]
    topic: how the mesh holds
    success_criteria:
      - {type: rule_violations}
      - {type: semantic_score, reference_id: ref_doc_12, min_score: 0.0}
"""


@pytest.fixture
async def examinee(client: AgentNet) -> str:
    """An agent on the synthetic model, which answers at once."""
    agent = agent_pb2.Agent(name="Examinee", version="1.0.0", system_prompt="You are examined.", model="synthetic")
    agent.sampling.max_output_tokens = 30
    if "Examinee" not in {found.name async for found in client.agents.list()}:
        await client.agents.create(agent)
    return "Examinee"


@pytest.mark.usefixtures("examinee")
async def test_the_seeds_suite_is_a_request_body_as_it_stands(mesh: Mesh) -> None:
    body = {
        "suite": "baseline_design_eval",
        "scenarios": [
            {
                "name": "resilience_planning",
                "mode": "brainstorm",
                "agents": ["Examinee"],
                "topic": "Edge network partition recovery",
                "success_criteria": [
                    {"type": "keyword_presence", "must_include": ["redundancy", "failover"]},
                    {"type": "semantic_score", "reference_id": "ref_doc_12", "min_score": 0.78},
                ],
            },
            {"name": "ethical_debate", "agents": ["Examinee"], "topic": "Autonomous swarm decision hierarchy"},
        ],
    }
    headers = {"authorization": f"Bearer {mesh.token()}"}
    reference = {"texts": ["Use redundancy and failover against partitions of an edge network."]}
    async with httpx.AsyncClient(base_url=f"http://{mesh.edge}", headers=headers, timeout=20) as rest:
        assert (await rest.post("/v1/embedding-sets/ref_doc_12", json=reference)).status_code == 200
        accepted = await rest.post("/v1/eval/run", json=body)
        assert accepted.status_code == 200, accepted.text
        path = f"/v1/eval/{accepted.json()['evaluation']['id']}"
        async with asyncio.timeout(60):
            while not (found := (await rest.get(path)).json()["evaluation"]).get("end_time"):
                await asyncio.sleep(0.2)
        refused = await rest.post("/v1/eval/run", json={"suite": "s", "scenarios": [{"name": "a b"}]})
    first, second = found["scores"]
    assert [verdict["type"] for verdict in first["verdicts"]] == ["keyword_presence", "semantic_score"]
    assert 0 < first["verdicts"][1]["score"] < 1, "the real embedding model compared it"
    assert 0 < first["coherence_score"] <= 1
    assert second["passed"]
    assert refused.status_code == 400
    assert refused.json()["details"][0]["reason"] == "SUITE_INVALID"


@pytest.mark.usefixtures("examinee")
async def test_a_killed_worker_comes_back_and_ends_what_it_began(mesh: Mesh, client: AgentNet) -> None:
    old = mesh.process("evaluation")
    started = await client.evaluations.start(PLAIN, repeats=12)
    os.kill(old["pid"], signal.SIGKILL)
    wait_until(lambda: mesh.process("evaluation")["pid"] not in {old["pid"], None}, seconds=30)
    async with asyncio.timeout(90):
        ended = await client.evaluations.wait(started.id)

    assert ended.status == evaluation_service_pb2.EVALUATION_STATUS_COMPLETED
    assert [score.repetition for score in ended.scores] == list(range(1, 13))
    assert len({score.session_id for score in ended.scores}) == 12
    assert {score.stop_reason for score in ended.scores} == {"completed"}


@pytest.mark.usefixtures("examinee")
def test_the_gate_works_from_the_command_line(mesh: Mesh, tmp_path: Path) -> None:
    suite, kept = tmp_path / "suite.yaml", tmp_path / "kept.json"
    suite.write_text(PLAIN.replace("ref_doc_12", "nothing_there"))
    failed = mesh.cli("eval", "run", str(suite), "--save", str(kept), check=False)
    same = mesh.cli("eval", "run", str(suite), "--baseline", str(kept), "--max-regression", "0.5", check=False)

    assert failed.returncode == 4, failed.stderr
    assert "there is no reference nothing_there" in failed.stdout
    assert same.returncode == 0, "it is as bad as before, and no worse"
    assert "plain" in mesh.cli("eval", "list").stdout


@pytest.mark.usefixtures("examinee")
async def test_the_client_has_every_noun_of_the_seed(client: AgentNet) -> None:
    """Agents, sessions, tasks, tools, policies, eval, cost: each made, read and used through the Python client."""
    turn = await client.agents.run("Examinee", "Say something.")
    session = await client.sessions.get(turn.session_id)
    graphs = [graph.id async for graph in client.task_graphs.list()]
    tool = tool_pb2.Tool(name="doubler", exec_mode="python")
    tool.function.code = "def doubler(a):\n    return {'twice': 2 * a}"
    tool.input_schema.update({"type": "object", "properties": {"a": {"type": "number"}}})
    if "doubler" not in {found.name for found in await client.tools.list()}:
        await client.tools.register(tool)
    events = [event async for event in client.tools.stream("doubler", {"a": 4})]
    bundle = await client.policies.create(
        "client-nouns", "rules: [{name: shout, type: regex, severity: minor, pattern: AAAA}]"
    )
    labelled = await client.policies.label(f"client-nouns@{bundle.version}", "trial")
    bundles = {found.name async for found in client.policies.list()}
    spent = [event.session_id async for event in client.costs.events(session_id=turn.session_id)]
    evaluation = await client.evaluations.run(PLAIN)

    assert session.rounds_executed == 1
    assert isinstance(graphs, list)
    assert (await client.tools.get("doubler")).name == "doubler"
    assert events[-1].finished.result.struct_value["twice"] == 8
    assert (await client.tools.usage("doubler")) is not None
    assert "trial" in labelled.labels
    assert "client-nouns" in bundles
    assert (await client.policies.get("client-nouns")).version == bundle.version
    assert spent == [turn.session_id]
    assert evaluation.success.runs == 1
