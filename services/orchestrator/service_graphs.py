"""TaskGraphService: convert in, one call of the domain, convert out."""

from __future__ import annotations

from typing import Any

from agentnet.orchestrator.v1 import task_graph_service_pb2 as pb
from agentnet.orchestrator.v1 import task_graph_service_pb2_grpc
from services.orchestrator import convert_graphs as convert
from services.orchestrator.planner import Planner
from services.orchestrator.task_graphs import TaskGraphs
from shared import fields
from shared.identity import current

TASK_GRAPHS = "agentnet.orchestrator.v1.TaskGraphService"


class TaskGraphService(task_graph_service_pb2_grpc.TaskGraphServiceServicer):
    """Plans and runs graphs."""

    def __init__(self, graphs: TaskGraphs, planner: Planner) -> None:
        self._graphs = graphs
        self._planner = planner

    async def PlanTasks(self, request: pb.PlanTasksRequest, context: Any) -> pb.PlanTasksResponse:
        asked = convert.plan(request)
        graph, repaired = await self._planner.plan(
            current(), asked.goal, agents=asked.agents, planner=asked.planner, max_nodes=asked.max_nodes
        )
        return pb.PlanTasksResponse(graph=graph, repaired=repaired)

    async def ExecuteTasks(self, request: pb.ExecuteTasksRequest, context: Any) -> pb.ExecuteTasksResponse:
        graph, request_id = convert.graph(request), fields.request_id(request.request_id)
        resume_from = convert.resume_from(request)
        team = fields.text(request.team, "team", limit=100)
        kept = await self._graphs.execute(current(), graph, request_id=request_id, resume_from=resume_from, team=team)
        return convert.executed(kept)

    async def GetTaskGraph(self, request: pb.GetTaskGraphRequest, context: Any) -> pb.GetTaskGraphResponse:
        graph_id = fields.identifier(request.task_graph_id, "task_graph_id")
        return convert.shown(await self._graphs.shown(current().tenant_id, graph_id))

    async def ListTaskGraphs(self, request: pb.ListTaskGraphsRequest, context: Any) -> pb.ListTaskGraphsResponse:
        asked = convert.listing(request)
        found = await self._graphs.every(current().tenant_id, status=request.status, page=asked.page)
        return convert.listed(found, asked)

    async def CancelTasks(self, request: pb.CancelTasksRequest, context: Any) -> pb.CancelTasksResponse:
        graph_id = fields.identifier(request.task_graph_id, "task_graph_id")
        request_id = fields.request_id(request.request_id)
        kept = await self._graphs.cancel(current(), graph_id, request.node_id, request_id=request_id)
        return pb.CancelTasksResponse(graph=convert.without_nodes(kept))

    async def DrawTaskGraph(self, request: pb.DrawTaskGraphRequest, context: Any) -> pb.DrawTaskGraphResponse:
        graph_id = fields.identifier(request.task_graph_id, "task_graph_id")
        return convert.drawing(await self._graphs.drawn(current().tenant_id, graph_id))
