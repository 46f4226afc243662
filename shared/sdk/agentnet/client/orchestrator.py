"""Orchestrating by hand: an orchestrator with agents of one's own, a planner, runs with checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import grpc

from agentnet.client.errors import AgentNetError
from agentnet.client.graph import AgentTask, TaskGraph, TaskResult, results_by_id
from agentnet.client.mesh import AgentNet
from agentnet.common.v1 import error_reason_pb2
from agentnet.orchestrator.v1 import agent_pb2, checkpoint_pb2, event_pb2, session_pb2

Frequency = Literal["step", "iteration", "tool_call"]
ONLY_TASK = "run"


class RunFailed(AgentNetError):
    """A run ended badly. `last_checkpoint_id` is where it can be gone on from; empty when nothing was reached yet."""

    def __init__(self, session: session_pb2.Session, *, last_checkpoint_id: str) -> None:
        failure = session.failure
        reason = error_reason_pb2.ErrorReason.Name(failure.reason).removeprefix("ERROR_REASON_")
        cancelled = session.status == session_pb2.SESSION_STATUS_CANCELLED
        super().__init__(
            failure.message or ("the run was cancelled" if cancelled else "the run failed"),
            code=grpc.StatusCode.CANCELLED if cancelled else grpc.StatusCode.FAILED_PRECONDITION,
            reason="" if cancelled else reason,
            facts=dict(failure.metadata),
        )
        self.last_checkpoint_id = last_checkpoint_id


class AgentOrchestrator:
    """Runs graphs with agents of its own, which it makes in the mesh when they are first needed."""

    def __init__(
        self, mesh: AgentNet, agents: Mapping[str, str], *, model: str = "", max_parallel_tasks: int = 5
    ) -> None:
        self._mesh = mesh
        self._agents = dict(agents)
        self._model = model
        self.max_parallel_tasks = max_parallel_tasks

    async def execute_graph(self, graph: TaskGraph) -> dict[str, TaskResult]:
        """Runs the graph to its end: what each task came to. Raises InvalidGraph and AgentNetError."""
        graph.validate()
        graph.max_parallel_tasks = graph.max_parallel_tasks or self.max_parallel_tasks
        for name, instructions in self._agents.items():
            await self._ensure(name, instructions)
        return await self._mesh.task_graphs.run(graph)

    async def _ensure(self, name: str, instructions: str) -> None:
        """An agent whose newest version has these instructions and this model."""
        wanted = agent_pb2.Agent(name=name, system_prompt=instructions, model=self._model)
        try:
            found = await self._mesh.agents.get(name)
        except AgentNetError as error:
            if error.reason != "AGENT_NOT_FOUND":
                raise
            await self._mesh.agents.create(wanted)
            return
        if (found.system_prompt, found.model) != (instructions, self._model):
            await self._mesh.agents.update(name, wanted)


def create_orchestrator(
    mesh: AgentNet, *, agents: Mapping[str, str] | None = None, model: str = "", max_parallel_tasks: int = 5
) -> AgentOrchestrator:
    """An orchestrator with agents of its own: names with their instructions. `model` empty: the mesh's default."""
    return AgentOrchestrator(mesh, agents or {}, model=model, max_parallel_tasks=max_parallel_tasks)


class PlannerAgent:
    """Makes graphs from goals."""

    def __init__(self, mesh: AgentNet, *, name: str = "") -> None:
        """`name` empty: the mesh's own planner."""
        self._mesh = mesh
        self._name = name

    async def plan(self, goal: str, available_agents: Sequence[str] = ()) -> TaskGraph:
        """A valid graph that reaches the goal with these agents, or with all. Raises AgentNetError (PLAN_INVALID)."""
        return await self._mesh.task_graphs.plan(goal, agents=available_agents, planner=self._name)


@dataclass(slots=True)
class CheckpointManager:
    """How often a run is saved, and what was saved last."""

    mesh: AgentNet
    frequency: Frequency = "iteration"
    auto_save: bool = True
    last_checkpoint_id: str = ""

    async def create_checkpoint(self, run_id: str, *, metadata: Mapping[str, Any] | None = None) -> str:
        """Saves a run as it is now and returns the checkpoint's id."""
        self.last_checkpoint_id = (await self.mesh.checkpoints.create(run_id, metadata=metadata)).id
        return self.last_checkpoint_id

    async def load_checkpoint(self, checkpoint_id: str) -> checkpoint_pb2.Checkpoint:
        """A checkpoint. Raises AgentNetError (CHECKPOINT_NOT_FOUND, CHECKPOINT_INCOMPATIBLE)."""
        return await self.mesh.checkpoints.get(checkpoint_id)

    async def list_checkpoints(self, *, agent_name: str = "", run_id: str = "") -> list[checkpoint_pb2.Checkpoint]:
        """Checkpoints, newest first."""
        return [found async for found in self.mesh.checkpoints.list(agent_name=agent_name, run_id=run_id)]

    async def delete_checkpoint(self, checkpoint_id: str) -> None:
        """Deletes a checkpoint for good."""
        await self.mesh.checkpoints.delete(checkpoint_id)

    def should_checkpoint(self, event_type: str) -> bool:
        """Whether an event ("step", "iteration" or "tool_call") asks for a checkpoint; a step is also a tool call."""
        if not self.auto_save:
            return False
        return event_type == self.frequency or (event_type == "step" and self.frequency == "tool_call")

    def see(self, event: event_pb2.SessionEvent) -> None:
        """Takes note of a checkpoint the mesh made."""
        if event.HasField("checkpoint_saved"):
            self.last_checkpoint_id = event.checkpoint_saved.checkpoint_id


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run came to. `output` is that of the last task that completed."""

    run_id: str
    output: str
    results: dict[str, TaskResult] = field(default_factory=dict[str, TaskResult])
    cost_micros_usd: int = 0
    last_checkpoint_id: str = ""


async def run_with_checkpointing(
    agent: str | TaskGraph,
    prompt: str = "",
    *,
    checkpoint_manager: CheckpointManager,
    resume_from: str | None = None,
) -> RunResult:
    """Runs an agent on a prompt, or a graph, saving it on the way; or goes on from a checkpoint.

    Raises RunFailed, which names the checkpoint to go on from, as `checkpoint_manager.last_checkpoint_id` does.
    """
    manager, mesh = checkpoint_manager, checkpoint_manager.mesh
    graph = agent if isinstance(agent, TaskGraph) else _single(agent, prompt)
    if manager.auto_save and not graph.checkpoint_frequency:
        graph.checkpoint_frequency = manager.frequency
    accepted = await mesh.task_graphs.execute(graph, resume_from=resume_from or "")
    async for event in mesh.task_graphs.watch(accepted.session_id):
        manager.see(event)
    session = await mesh.sessions.get(accepted.session_id)
    found = await mesh.task_graphs.get(accepted.graph.id)
    manager.last_checkpoint_id = found.last_checkpoint_id or manager.last_checkpoint_id
    if session.status != session_pb2.SESSION_STATUS_COMPLETED:
        raise RunFailed(session, last_checkpoint_id=manager.last_checkpoint_id)
    results = results_by_id(found.results)
    completed = [result for result in results.values() if result.success]
    return RunResult(
        run_id=accepted.graph.id,
        output=completed[-1].output if completed else "",
        results=results,
        cost_micros_usd=session.cost_micros_usd,
        last_checkpoint_id=manager.last_checkpoint_id,
    )


def _single(agent: str, prompt: str) -> TaskGraph:
    graph = TaskGraph(goal="")
    graph.add_task(AgentTask(ONLY_TASK, agent, prompt))
    return graph
