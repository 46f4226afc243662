"""CheckpointService: convert in, one call of the domain, convert out."""

from __future__ import annotations

from typing import Any

from agentnet.orchestrator.v1 import checkpoint_service_pb2 as pb
from agentnet.orchestrator.v1 import checkpoint_service_pb2_grpc
from services.orchestrator import convert_graphs as convert
from services.orchestrator.task_graphs import TaskGraphs
from shared import fields
from shared.identity import current

CHECKPOINTS = "agentnet.orchestrator.v1.CheckpointService"


class CheckpointService(checkpoint_service_pb2_grpc.CheckpointServiceServicer):
    """Keeps checkpoints of graphs."""

    def __init__(self, graphs: TaskGraphs) -> None:
        self._graphs = graphs
        self._checkpoints = graphs.checkpoints

    async def CreateCheckpoint(self, request: pb.CreateCheckpointRequest, context: Any) -> pb.CreateCheckpointResponse:
        run_id, notes = fields.identifier(request.run_id, "run_id"), convert.notes(request.metadata)
        made = await self._graphs.save(current().tenant_id, run_id, notes=notes)
        return pb.CreateCheckpointResponse(checkpoint=made)

    async def GetCheckpoint(self, request: pb.GetCheckpointRequest, context: Any) -> pb.GetCheckpointResponse:
        checkpoint_id = fields.identifier(request.checkpoint_id, "checkpoint_id")
        found = await self._checkpoints.find(current().tenant_id, checkpoint_id)
        return pb.GetCheckpointResponse(checkpoint=found)

    async def ListCheckpoints(self, request: pb.ListCheckpointsRequest, context: Any) -> pb.ListCheckpointsResponse:
        chosen, asked = convert.list_checkpoints(request)
        found = await self._checkpoints.every(current().tenant_id, chosen, page=asked.page)
        return convert.checkpoints_listed(found, asked)

    async def DeleteCheckpoint(self, request: pb.DeleteCheckpointRequest, context: Any) -> pb.DeleteCheckpointResponse:
        checkpoint_id = fields.identifier(request.checkpoint_id, "checkpoint_id")
        await self._checkpoints.delete(current().tenant_id, checkpoint_id)
        return pb.DeleteCheckpointResponse()
