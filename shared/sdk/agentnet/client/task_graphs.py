"""Task graphs of a mesh: plan, run, watch, cancel, draw; and their checkpoints."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from google.protobuf import json_format, struct_pb2

from agentnet.client.calls import unary
from agentnet.client.graph import TaskGraph, TaskResult, results_by_id
from agentnet.client.sessions import Sessions
from agentnet.client.transport import Transport
from agentnet.orchestrator.v1 import (
    checkpoint_pb2,
    checkpoint_service_pb2,
    checkpoint_service_pb2_grpc,
    event_pb2,
    task_graph_pb2,
    task_graph_service_pb2,
    task_graph_service_pb2_grpc,
)

Seen = Callable[[event_pb2.SessionEvent], None]


class TaskGraphs:
    """Graphs of agents' work. A graph runs whether or not anyone watches."""

    def __init__(self, transport: Transport, sessions: Sessions) -> None:
        self._stub = task_graph_service_pb2_grpc.TaskGraphServiceStub(transport.channel)
        self._call = transport.options
        self._sessions = sessions

    async def plan(
        self, goal: str, *, agents: Sequence[str] = (), planner: str = "", max_nodes: int = 0, timeout: float = 300.0
    ) -> TaskGraph:
        """Asks a planner agent for a graph that reaches the goal. FAILED_PRECONDITION (PLAN_INVALID) when it cannot."""
        request = task_graph_service_pb2.PlanTasksRequest(
            goal=goal, agents=agents, planner=planner, max_nodes=max_nodes
        )
        answer = await unary(self._stub.PlanTasks(request, **self._call(timeout=timeout)))
        return TaskGraph.from_proto(answer.graph)

    async def execute(
        self, graph: TaskGraph | None = None, *, resume_from: str = "", request_id: str = ""
    ) -> task_graph_service_pb2.ExecuteTasksResponse:
        """Accepts a graph, or goes on from a checkpoint, and returns at once."""
        request = task_graph_service_pb2.ExecuteTasksRequest(resume_from=resume_from, request_id=request_id)
        if graph is not None:
            request.graph.CopyFrom(graph.to_proto())
        return await unary(self._stub.ExecuteTasks(request, **self._call()))

    async def run(
        self, graph: TaskGraph | None = None, *, resume_from: str = "", seen: Seen | None = None
    ) -> dict[str, TaskResult]:
        """Runs a graph to its end and returns what each task came to; `seen` gets every event on the way.

        A task that failed is in the results: look at `success`.
        """
        accepted = await self.execute(graph, resume_from=resume_from)
        async for event in self.watch(accepted.session_id):
            if seen is not None:
                seen(event)
        return results_by_id((await self.get(accepted.graph.id)).results)

    def watch(self, session_id: str, *, after: int = 0) -> AsyncIterator[event_pb2.SessionEvent]:
        """The events of the graph's session, live until it ends."""
        return self._sessions.watch(session_id, after=after)

    async def get(self, task_graph_id: str) -> task_graph_service_pb2.GetTaskGraphResponse:
        """The graph, its results so far, and how far it is."""
        request = task_graph_service_pb2.GetTaskGraphRequest(task_graph_id=task_graph_id)
        return await unary(self._stub.GetTaskGraph(request, **self._call()))

    async def list(self) -> AsyncIterator[task_graph_pb2.TaskGraph]:
        """All graphs without their nodes, newest first, page by page."""
        token = ""
        while True:
            request = task_graph_service_pb2.ListTaskGraphsRequest(page_token=token)
            page = await unary(self._stub.ListTaskGraphs(request, **self._call()))
            for graph in page.graphs:
                yield graph
            if not (token := page.next_page_token):
                return

    async def cancel(self, task_graph_id: str, *, task_id: str = "") -> task_graph_pb2.TaskGraph:
        """Ends a graph, or a task and all that depends on it."""
        request = task_graph_service_pb2.CancelTasksRequest(task_graph_id=task_graph_id, node_id=task_id)
        return (await unary(self._stub.CancelTasks(request, **self._call()))).graph

    async def draw(self, task_graph_id: str) -> task_graph_service_pb2.DrawTaskGraphResponse:
        """The graph as Mermaid text and as SVG, with the live states of its tasks."""
        request = task_graph_service_pb2.DrawTaskGraphRequest(task_graph_id=task_graph_id)
        return await unary(self._stub.DrawTaskGraph(request, **self._call()))


class Checkpoints:
    """Saved states of graphs, to go on from."""

    def __init__(self, transport: Transport) -> None:
        self._stub = checkpoint_service_pb2_grpc.CheckpointServiceStub(transport.channel)
        self._call = transport.options

    async def create(self, run_id: str, *, metadata: Mapping[str, Any] | None = None) -> checkpoint_pb2.Checkpoint:
        """Makes a checkpoint of a graph as it is now."""
        notes = json_format.ParseDict(dict(metadata or {}), struct_pb2.Struct())
        request = checkpoint_service_pb2.CreateCheckpointRequest(run_id=run_id, metadata=notes)
        return (await unary(self._stub.CreateCheckpoint(request, **self._call()))).checkpoint

    async def get(self, checkpoint_id: str) -> checkpoint_pb2.Checkpoint:
        """A checkpoint, upgraded to the present version."""
        request = checkpoint_service_pb2.GetCheckpointRequest(checkpoint_id=checkpoint_id)
        return (await unary(self._stub.GetCheckpoint(request, **self._call()))).checkpoint

    async def list(self, *, agent_name: str = "", run_id: str = "") -> AsyncIterator[checkpoint_pb2.Checkpoint]:
        """Checkpoints, newest first, page by page."""
        token = ""
        while True:
            request = checkpoint_service_pb2.ListCheckpointsRequest(
                agent_name=agent_name, run_id=run_id, page_token=token
            )
            page = await unary(self._stub.ListCheckpoints(request, **self._call()))
            for checkpoint in page.checkpoints:
                yield checkpoint
            if not (token := page.next_page_token):
                return

    async def delete(self, checkpoint_id: str) -> None:
        """Deletes a checkpoint for good."""
        request = checkpoint_service_pb2.DeleteCheckpointRequest(checkpoint_id=checkpoint_id)
        await unary(self._stub.DeleteCheckpoint(request, **self._call()))
