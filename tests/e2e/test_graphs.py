"""Task graphs on the real mesh: REST as the seeds have it, the command line, the Python client, the real model."""

from __future__ import annotations

import json
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

from agentnet.client import (
    AgentNet,
    AgentNetError,
    AgentTask,
    Cel,
    CheckpointManager,
    TaskGraph,
    ToolTask,
    run_with_checkpointing,
)
from agentnet.orchestrator.v1 import agent_pb2
from tests.e2e.conftest import Mesh

SEED = {
    "nodes": [
        {"id": "root", "prompt": "Plan high availability design", "agent": "Athena", "deps": []},
        {"id": "analysis", "prompt": "Analyze failure modes", "agent": "Athena", "deps": ["root"]},
        {"id": "mitigations", "prompt": "Propose mitigations", "agent": "Apollo", "deps": ["analysis"]},
        {"id": "summary", "prompt": "Integrate plan & mitigations", "agent": "Hermes", "deps": ["mitigations"]},
    ]
}


QUICK = {
    "goal": "Ship it",
    "checkpoint_policy": {"frequency": "CHECKPOINT_FREQUENCY_STEP"},
    "nodes": [
        {"id": "a", "agent": "Quick", "prompt": "one"},
        {"id": "b", "agent": "Quick", "prompt": "two", "deps": ["a"]},
        {"id": "c", "agent": "Quick", "prompt": "three", "deps": ["a"], "condition": "results.a.success"},
        {"id": "all", "kind": "TASK_KIND_AGGREGATOR", "aggregation": "AGGREGATION_CONCAT", "deps": ["b", "c"]},
    ],
}


PLAN = """
{"nodes": [
  {"id": "look", "prompt": "Look around.", "agent": "Quick", "depends_on": []},
  {"id": "tell", "prompt": "Tell it.", "agent": "Quick", "depends_on": ["look"]}
]}
"""
# A planner without chance: its first answer is a cycle, what it answers to a fault is whole.
SCHEMER = {
    "name": "Schemer",
    "system_prompt": "You plan.",
    "engine": "rules",
    "engine_config": {
        "rules": [{"when": "asked.contains('It cannot be run: there is a cycle: look > look')", "answer": PLAN}],
        "otherwise": PLAN.replace('"depends_on": []', '"depends_on": ["look"]'),
    },
}


async def quick(client: AgentNet) -> None:
    """An agent of the synthetic model."""
    with suppress(AgentNetError):
        await client.agents.create(agent_pb2.Agent(name="Quick", system_prompt="You are quick.", model="synthetic"))


def rest(mesh: Mesh, verb: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    data = json.dumps(body).encode() if body is not None else None
    headers = {"authorization": f"Bearer {mesh.token()}", "content-type": "application/json"}
    request = urllib.request.Request(f"http://{mesh.edge}{path}", data=data, headers=headers, method=verb)
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: dict[str, Any] = json.loads(answer.read())
    return found


async def test_the_seeds_graph_runs_over_rest_as_it_stands(mesh: Mesh, client: AgentNet) -> None:
    accepted = rest(mesh, "POST", "/v1/tasks/execute", SEED)
    session_id = accepted.get("sessionId") or accepted["session_id"]
    tokens = 0
    async for event in client.sessions.watch(session_id):
        tokens += event.HasField("tokens_produced")
    found = rest(mesh, "GET", f"/v1/tasks/{accepted['graph']['id']}")
    picture = rest(mesh, "GET", f"/v1/tasks/{accepted['graph']['id']}/picture")
    assert tokens > 4
    assert found["graph"]["status"] == "TASK_STATUS_COMPLETED"
    assert all(result["output"] for result in found["results"])
    assert picture["mermaid"].count(":::completed") == 4


async def test_a_goal_becomes_a_graph_over_rest_and_the_graph_runs(mesh: Mesh, client: AgentNet) -> None:
    await quick(client)
    rest(mesh, "POST", "/v1/agents", SCHEMER)
    goal = {"goal": "Know the place", "agents": ["Quick"], "planner": "Schemer", "max_nodes": 5}
    planned = rest(mesh, "POST", "/v1/tasks/plan", goal)
    assert planned["repaired"] is True
    assert planned["graph"]["goal"] == "Know the place"
    assert [(node["id"], node.get("depends_on", [])) for node in planned["graph"]["nodes"]] == [
        ("look", []),
        ("tell", ["look"]),
    ]
    accepted = rest(mesh, "POST", "/v1/tasks/execute", {"graph": planned["graph"]})
    async for _ in client.sessions.watch(accepted.get("sessionId") or accepted["session_id"]):
        pass
    found = rest(mesh, "GET", f"/v1/tasks/{accepted['graph']['id']}")
    assert found["graph"]["status"] == "TASK_STATUS_COMPLETED"


async def test_a_node_calls_a_tool_in_the_sandbox_with_what_another_one_found(mesh: Mesh, client: AgentNet) -> None:
    for name, code in (("place_finder", "return {'id': 20}"), ("id_doubler", "return {'twice': 2 * a}")):
        function = {"code": f"def {name}({'a' if name == 'id_doubler' else ''}):\n    {code}"}
        rest(mesh, "POST", "/v1/tools", {"name": name, "exec_mode": "python", "function": function})
    graph = TaskGraph(goal="Twice the id")
    graph.add_task(ToolTask("find", "place_finder"))
    graph.add_task(ToolTask("double", "id_doubler", {"a": Cel("results.find.json.id + 1")}, dependencies=["find"]))
    results = await client.task_graphs.run(graph)
    assert [(result.output, result.effect) for result in results.values()] == [
        ('{"id": 20}', "done"),
        ('{"twice": 42}', "done"),
    ]


async def test_the_command_line_runs_and_shows_a_graph(mesh: Mesh, client: AgentNet, tmp_path: Path) -> None:
    await quick(client)
    file = tmp_path / "graph.json"
    file.write_text(json.dumps(QUICK))
    told = mesh.cli("graph", "run", str(file)).stdout
    graph_id = told.split()[1]
    shown = mesh.cli("graph", "show", graph_id).stdout
    file.write_text(json.dumps({"nodes": [{"id": "a", "prompt": "p", "agent": "Athena", "deps": ["a"]}]}))
    refused = mesh.cli("graph", "run", str(file), check=False)
    assert "■ all" in told
    assert "checkpoint chk_" in told
    assert "graph ended" in told
    assert shown.count("completed") == 4
    assert "4 of 4 ended" in shown
    assert mesh.cli("graph", "show", graph_id, "--svg").stdout.startswith("<svg")
    assert graph_id in mesh.cli("graph", "list").stdout
    assert refused.returncode == 1
    assert "there is a cycle: a > a" in refused.stderr


async def test_a_run_with_checkpoints_goes_on_from_one(client: AgentNet) -> None:
    await quick(client)
    graph = TaskGraph(goal="A resilient edge")
    graph.add_task(AgentTask("think", "Quick", "Name one risk."))
    graph.add_task(AgentTask("write", "Quick", "Answer it.", dependencies=["think"]))
    manager = CheckpointManager(client, frequency="step")
    first = await run_with_checkpointing(graph, checkpoint_manager=manager)
    again = await run_with_checkpointing(graph, checkpoint_manager=manager, resume_from=first.last_checkpoint_id)
    assert first.last_checkpoint_id
    assert again.run_id != first.run_id
    assert again.results["think"].output == first.results["think"].output
