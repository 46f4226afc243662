"""MemoryService: convert in, one call of the domain, convert out."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from agentnet.memory.v1 import change_pb2
from agentnet.memory.v1 import memory_service_pb2 as pb
from agentnet.memory.v1 import memory_service_pb2_grpc as rpc
from services.memory import convert, convert_context
from services.memory.context import Contexts
from services.memory.episodes import Episodes
from services.memory.federation import Federation, governed, merged
from services.memory.forgetting import Forgetting
from services.memory.recall import Recall
from services.memory.remember import Remembering
from shared import fields
from shared.clock import Clock
from shared.identity import current


class MemoryService(rpc.MemoryServiceServicer):
    """What do we know?"""

    def __init__(
        self,
        remembering: Remembering,
        recall: Recall,
        contexts: Contexts,
        episodes: Episodes,
        forgetting: Forgetting,
        *,
        federation: Federation,
        clock: Clock,
    ) -> None:
        self._remembering = remembering
        self._recall = recall
        self._contexts = contexts
        self._episodes = episodes
        self._forgetting = forgetting
        self._federation = federation
        self._clock = clock

    async def Remember(self, request: pb.RememberRequest, context: Any) -> pb.RememberResponse:
        new = convert.new_memory(request, self._clock)
        memory, created = await self._remembering.remember(current().tenant_id, new)
        return pb.RememberResponse(memory=convert.memory(memory), created=created)

    async def UpdateMemory(
        self, request: change_pb2.UpdateMemoryRequest, context: Any
    ) -> change_pb2.UpdateMemoryResponse:
        memory_id = fields.identifier(request.memory_id, "memory_id")
        changed = await self._remembering.update(current().tenant_id, memory_id, convert.change(request))
        return change_pb2.UpdateMemoryResponse(memory=convert.memory(changed))

    async def GetMemory(self, request: pb.GetMemoryRequest, context: Any) -> pb.GetMemoryResponse:
        memory_id = fields.identifier(request.memory_id, "memory_id")
        found = await self._remembering.read(current().tenant_id, memory_id)
        vector = await self._remembering.vector(current().tenant_id, memory_id) if request.include_embedding else ()
        return pb.GetMemoryResponse(memory=convert.memory(found, with_vector=vector))

    async def ListMemories(self, request: pb.ListMemoriesRequest, context: Any) -> pb.ListMemoriesResponse:
        asked = convert.list_memories(request)
        found = await self._remembering.listed(
            current().tenant_id, asked.chosen, newest_first=asked.newest_first, page=asked.page
        )
        return convert.list_response(found, asked)

    async def Recall(self, request: pb.RecallRequest, context: Any) -> pb.RecallResponse:
        asked = convert.question(request)
        here, elsewhere = await asyncio.gather(
            self._recall.recall(current().tenant_id, asked), self._federation.recall(request)
        )
        own = convert.answer(here, explain=request.explain)
        if not request.clusters:
            return own
        told = partial(self._recall.told, current().tenant_id, asked.chosen.agent)
        return merged(own, governed(elsewhere, told), limit=asked.limit)

    async def Forget(self, request: pb.ForgetRequest, context: Any) -> pb.ForgetResponse:
        memory_id = fields.identifier(request.memory_id, "memory_id")
        caller = current()
        receipt = await self._forgetting.forget(caller.tenant_id, memory_id, requested_by=caller.subject)
        return pb.ForgetResponse(delete_time=convert.time(receipt.deleted_at), receipt=convert.receipt(receipt))

    async def AppendTurn(self, request: pb.AppendTurnRequest, context: Any) -> pb.AppendTurnResponse:
        held = await self._episodes.append(current().tenant_id, convert.said(request))
        return pb.AppendTurnResponse(turns_held=held)

    async def GetContext(self, request: pb.GetContextRequest, context: Any) -> pb.GetContextResponse:
        found = await self._contexts.context(current().tenant_id, convert_context.need(request))
        return convert_context.response(found)
