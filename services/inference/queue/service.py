"""QueueService: convert in, one call of the queue, convert out."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from agentnet.inference.v1 import queue_service_pb2 as pb
from agentnet.inference.v1 import queue_service_pb2_grpc
from services.inference.errors import GenerationCancelled, GenerationNotFound
from services.inference.queue import convert
from services.inference.queue.store import QueueStore
from services.inference.queue.worker import Worker, run_id
from shared import fields, paging
from shared.errors import Unavailable
from shared.identity import current

NAME: Final = "agentnet.inference.v1.QueueService"
_CANCEL_TRIES: Final = 5
_CANCEL_PAUSE_SECONDS: Final = 0.2


class QueueService(queue_service_pb2_grpc.QueueServiceServicer):
    """What may wait?"""

    def __init__(self, store: QueueStore, worker: Worker) -> None:
        self._store = store
        self._worker = worker

    async def SubmitGeneration(self, request: pb.SubmitGenerationRequest, context: Any) -> pb.SubmitGenerationResponse:
        asked = convert.submitted(request)
        order = await self._worker.read(asked)
        self._worker.engine.admission.model(order)
        await self._store.submit(current(), order.generation_id, asked.SerializeToString())
        self._worker.wake()
        return pb.SubmitGenerationResponse(generation_id=order.generation_id)

    async def GetSubmittedGeneration(
        self, request: pb.GetSubmittedGenerationRequest, context: Any
    ) -> pb.GetSubmittedGenerationResponse:
        name = fields.identifier(request.generation_id, "generation_id")
        found = await self._store.find(current().tenant_id, name)
        if found is None:
            raise _unknown(name)
        return convert.shown(found)

    async def ListSubmittedGenerations(
        self, request: pb.ListSubmittedGenerationsRequest, context: Any
    ) -> pb.ListSubmittedGenerationsResponse:
        scope = f"submitted {request.open}"
        asked = paging.page(request.page_size, request.page_token, scope=scope)
        found = await self._store.list(current().tenant_id, asked, still_open=request.open)
        return convert.listed(found, asked, scope=scope)

    async def CancelSubmittedGeneration(
        self, request: pb.CancelSubmittedGenerationRequest, context: Any
    ) -> pb.CancelSubmittedGenerationResponse:
        name = fields.identifier(request.generation_id, "generation_id")
        return pb.CancelSubmittedGenerationResponse(already_ended=await self._cancelled(current().tenant_id, name))

    async def _cancelled(self, tenant: str, name: str) -> bool:
        """Whether it had ended. One that is just being begun is found a moment later."""
        cancelled = GenerationCancelled("it was called off before it began", generation_id=name)
        for _ in range(_CANCEL_TRIES):
            found = await self._store.find(tenant, name)
            if found is None:
                raise _unknown(name)
            if found.ended_at:
                return True
            if await self._store.withdraw(tenant, name, cancelled.failure().SerializeToString()):
                return False
            try:
                if not await self._worker.engine.cancel(tenant, run_id(name, max(1, found.runs))):
                    return False
            except GenerationNotFound:
                pass
            await asyncio.sleep(_CANCEL_PAUSE_SECONDS)
        raise Unavailable("it is between two processes; try again", generation_id=name)


def _unknown(name: str) -> GenerationNotFound:
    return GenerationNotFound(f"no submitted generation {name}", generation_id=name)
