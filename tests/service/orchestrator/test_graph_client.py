"""The Python client runs graphs against a served orchestrator."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from agentnet.client import (
    AgentNet,
    AgentNetError,
    AgentTask,
    CheckpointManager,
    PlannerAgent,
    RunFailed,
    TaskGraph,
    create_orchestrator,
    run_with_checkpointing,
)
from agentnet.client.credentials import Target
from agentnet.client.transport import Transport
from shared.errors import Reason, ResourceExhausted
from tests.service.orchestrator.conftest import Mesh

EXHAUSTED = ResourceExhausted("no money", reason=Reason.ERROR_REASON_BUDGET_EXHAUSTED)


class Admitted(Target):
    """A target whose calls come as from behind the edge."""

    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("x-agentnet-identity", str(self.credential)),)


@pytest.fixture
async def client(mesh: Mesh) -> AsyncIterator[AgentNet]:
    async with AgentNet(Transport(Admitted(mesh.address, mesh.me()[0][1]))) as connected:
        yield connected


def chain(*names: str, agent: str = "Athena") -> TaskGraph:
    graph = TaskGraph(goal="Ship it")
    for place, name in enumerate(names):
        graph.add_task(AgentTask(name, agent, f"Do {name}.", dependencies=list(names[place - 1 : place])))
    return graph


async def test_a_graph_is_run_and_watched_to_its_results(client: AgentNet) -> None:
    kinds: list[str] = []
    results = await client.task_graphs.run(
        chain("a", "b"), seen=lambda event: kinds.append(event.WhichOneof("payload") or "")
    )
    (listed,) = [graph async for graph in client.task_graphs.list()]
    drawn = await client.task_graphs.draw(listed.id)
    assert [result.success for result in results.values()] == [True, True]
    assert results["b"].output == "Athena has one idea about it."
    assert (kinds[0], kinds[-1]) == ("session_started", "session_finished")
    assert "n0 --> n1" in drawn.mermaid


async def test_an_orchestrator_brings_its_own_agents_and_changes_them_by_version(client: AgentNet) -> None:
    for instructions in ("You are a research specialist.", "You are a better one."):
        orchestrator = create_orchestrator(client, agents={"researcher": instructions}, max_parallel_tasks=2)
        results = await orchestrator.execute_graph(chain("find", agent="researcher"))
        assert results["find"].success
    assert results["find"].agent_name == "researcher@1.0.1"
    assert (await client.agents.get("researcher")).system_prompt == "You are a better one."


async def test_a_planner_makes_a_graph_that_runs(client: AgentNet, mesh: Mesh) -> None:
    plan = {"nodes": [{"id": "only", "prompt": "p", "agent": "Apollo", "depends_on": []}]}
    mesh.world.inference.reply = lambda utterance: json.dumps(plan)
    graph = await PlannerAgent(client, name="Hermes").plan("Win", ["Apollo"])
    assert {name: task.agent_name for name, task in graph.tasks.items()} == {"only": "Apollo"}
    assert (await client.task_graphs.run(graph))["only"].success


async def test_a_run_that_fails_names_a_checkpoint_and_goes_on_from_it(client: AgentNet, mesh: Mesh) -> None:
    mesh.world.inference.failures = [None, EXHAUSTED]  # type: ignore[list-item] # the first one goes well
    manager = CheckpointManager(client, frequency="step")
    graph = chain("a", "b", "c")
    with pytest.raises(RunFailed) as raised:
        await run_with_checkpointing(graph, checkpoint_manager=manager)
    assert raised.value.reason == "BUDGET_EXHAUSTED"
    assert raised.value.last_checkpoint_id == manager.last_checkpoint_id != ""

    result = await run_with_checkpointing(graph, checkpoint_manager=manager, resume_from=manager.last_checkpoint_id)

    assert result.output == "Athena has one idea about it."
    assert [one.success for one in result.results.values()] == [True, True, True]
    assert len(mesh.world.inference.started) == 2 + 2


async def test_one_agent_runs_on_a_prompt_with_checkpoints(client: AgentNet) -> None:
    manager = CheckpointManager(client)
    result = await run_with_checkpointing("Athena", "Complete this long-running task.", checkpoint_manager=manager)
    found = await manager.load_checkpoint(result.last_checkpoint_id)
    listed = await manager.list_checkpoints(agent_name="Athena", run_id=result.run_id)
    made = await manager.create_checkpoint(result.run_id, metadata={"note": "mine"})
    await manager.delete_checkpoint(made)
    with pytest.raises(AgentNetError) as raised:
        await manager.load_checkpoint(made)
    assert (result.output, result.cost_micros_usd) == ("Athena has one idea about it.", 7)
    assert (found.agent_name, found.iteration_count) == ("Athena", 1)
    assert [one.id for one in listed] == [found.id]
    assert raised.value.reason == "CHECKPOINT_NOT_FOUND"


async def test_a_cancelled_run_says_so(client: AgentNet, mesh: Mesh) -> None:
    import asyncio

    mesh.world.inference.held_at = 3
    running = asyncio.create_task(run_with_checkpointing(chain("a", "b"), checkpoint_manager=CheckpointManager(client)))
    while not mesh.world.inference.started:
        await asyncio.sleep(0.01)
    (graph,) = [graph async for graph in client.task_graphs.list()]
    await client.task_graphs.cancel(graph.id)
    with pytest.raises(RunFailed, match="the run was cancelled"):
        await running
