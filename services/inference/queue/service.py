"""QueueService: convert in, one call of the queue, convert out."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from agentnet.common.v1 import failure_pb2
from agentnet.inference.v1 import inference_service_pb2, queue_service_pb2_grpc
from agentnet.inference.v1 import queue_service_pb2 as pb
from services.inference.errors import GenerationCancelled, GenerationNotFound
from services.inference.queue.store import QueueStore, Submitted
from services.inference.queue.worker import Worker, run_id
from shared import fields
from shared.errors import FieldTooLong, Unavailable
from shared.identity import current

NAME: Final = "agentnet.inference.v1.QueueService"
_MAX_REQUEST: Final = 8 * 1024 * 1024
_CANCEL_TRIES: Final = 5
_CANCEL_PAUSE_SECONDS: Final = 0.2


class QueueService(queue_service_pb2_grpc.QueueServiceServicer):
    """What may wait?"""

    def __init__(self, store: QueueStore, worker: Worker) -> None:
        self._store = store
        self._worker = worker

    async def SubmitGeneration(self, request: pb.SubmitGenerationRequest, context: Any) -> pb.SubmitGenerationResponse:
        asked = request.generation
        if asked.ByteSize() > _MAX_REQUEST:
            raise FieldTooLong("generation", length=asked.ByteSize(), limit=_MAX_REQUEST, unit="bytes")
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
        return _shown(found)

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


def _shown(found: Submitted) -> pb.GetSubmittedGenerationResponse:
    shown = pb.GetSubmittedGenerationResponse(
        generation_id=found.id,
        state=_state(found),
        create_time=_time(found.created_at),
        runs=found.runs,
        running_id=run_id(found.id, found.runs) if found.runs else "",
    )
    if found.ended_at:
        shown.end_time.CopyFrom(_time(found.ended_at))
    if found.succeeded:
        shown.response.CopyFrom(inference_service_pb2.GenerateTextResponse.FromString(found.outcome))
    elif found.succeeded is False:
        shown.failure.CopyFrom(failure_pb2.Failure.FromString(found.outcome))
    return shown


def _state(found: Submitted) -> pb.SubmittedState.ValueType:
    if found.succeeded is not None:
        return pb.SUBMITTED_STATE_SUCCEEDED if found.succeeded else pb.SUBMITTED_STATE_FAILED
    return pb.SUBMITTED_STATE_RUNNING if found.running else pb.SUBMITTED_STATE_QUEUED


def _time(at: datetime) -> Timestamp:
    found = Timestamp()
    found.FromDatetime(at)
    return found
