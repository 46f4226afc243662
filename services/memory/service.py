"""MemoryService: convert in, one call of recall, convert out."""

from __future__ import annotations

from typing import Any

from agentnet.memory.v1 import memory_service_pb2 as pb
from agentnet.memory.v1 import memory_service_pb2_grpc as rpc
from services.memory import convert
from services.memory.recall import Recall
from shared import fields
from shared.identity import current


class MemoryService(rpc.MemoryServiceServicer):
    """What do we know?"""

    def __init__(self, recall: Recall) -> None:
        self._recall = recall

    async def Remember(self, request: pb.RememberRequest, context: Any) -> pb.RememberResponse:
        memory, created = await self._recall.remember(current().tenant_id, convert.new_memory(request))
        return pb.RememberResponse(memory=convert.memory(memory), created=created)

    async def GetMemory(self, request: pb.GetMemoryRequest, context: Any) -> pb.GetMemoryResponse:
        memory_id = fields.identifier(request.memory_id, "memory_id")
        return pb.GetMemoryResponse(memory=convert.memory(await self._recall.find(current().tenant_id, memory_id)))

    async def ListMemories(self, request: pb.ListMemoriesRequest, context: Any) -> pb.ListMemoriesResponse:
        asked = convert.list_memories(request)
        found = await self._recall.every(
            current().tenant_id, asked.chosen, newest_first=asked.newest_first, page=asked.page
        )
        return convert.list_response(found, asked)

    async def Recall(self, request: pb.RecallRequest, context: Any) -> pb.RecallResponse:
        asked = convert.question(request)
        found = await self._recall.recall(
            current().tenant_id, asked.query, asked.chosen, min_score=asked.min_score, limit=asked.limit
        )
        return pb.RecallResponse(matches=convert.scored(found))

    async def Forget(self, request: pb.ForgetRequest, context: Any) -> pb.ForgetResponse:
        memory_id = fields.identifier(request.memory_id, "memory_id")
        return pb.ForgetResponse(delete_time=convert.time(await self._recall.forget(current().tenant_id, memory_id)))

    async def AppendTurn(self, request: pb.AppendTurnRequest, context: Any) -> pb.AppendTurnResponse:
        session_id, turn = convert.turn(request)
        held = await self._recall.append(current().tenant_id, session_id, turn, remember=request.remember)
        return pb.AppendTurnResponse(turns_held=held)

    async def GetContext(self, request: pb.GetContextRequest, context: Any) -> pb.GetContextResponse:
        found = await self._recall.context(current().tenant_id, convert.context(request))
        return convert.context_response(found)
