"""EmbeddingSetService: convert in, one call of the domain, convert out."""

from __future__ import annotations

from typing import Any

from agentnet.memory.v1 import embedding_set_service_pb2 as pb
from agentnet.memory.v1 import embedding_set_service_pb2_grpc as rpc
from services.memory import convert_sets as convert
from services.memory.sets import EmbeddingSets
from shared.identity import current


class EmbeddingSetService(rpc.EmbeddingSetServiceServicer):
    """How near does it come?"""

    def __init__(self, sets: EmbeddingSets) -> None:
        self._sets = sets

    async def AddToEmbeddingSet(
        self, request: pb.AddToEmbeddingSetRequest, context: Any
    ) -> pb.AddToEmbeddingSetResponse:
        added = await self._sets.add(current().tenant_id, convert.name(request.name), convert.texts(request.texts))
        return pb.AddToEmbeddingSetResponse(added=added)

    async def CompareWithEmbeddingSet(
        self, request: pb.CompareWithEmbeddingSetRequest, context: Any
    ) -> pb.CompareWithEmbeddingSetResponse:
        asked = convert.comparison(request)
        return convert.compared(
            await self._sets.nearest(current().tenant_id, asked.name, asked.text, limit=asked.limit)
        )

    async def DeleteEmbeddingSet(
        self, request: pb.DeleteEmbeddingSetRequest, context: Any
    ) -> pb.DeleteEmbeddingSetResponse:
        caller = current()
        deleted = await self._sets.delete(caller.tenant_id, convert.name(request.name), requested_by=caller.subject)
        return pb.DeleteEmbeddingSetResponse(deleted=deleted)
