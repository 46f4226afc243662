"""inference and memory over the mesh."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final

import grpc
from google.protobuf.duration_pb2 import Duration

from agentnet.inference.v1 import generation_pb2, message_pb2
from agentnet.inference.v1 import inference_service_pb2 as inference
from agentnet.inference.v1 import inference_service_pb2_grpc as inference_rpc
from agentnet.memory.v1 import memory_service_pb2 as memory
from agentnet.memory.v1 import memory_service_pb2_grpc as memory_rpc
from agentnet.orchestrator.v1 import agent_pb2
from services.orchestrator.peers import TurnMemory, Utterance
from services.orchestrator.prompts import Known
from shared import identity
from shared.errors import MeshError, NotFound
from shared.identity import Principal, Signer
from shared.log import log
from shared.rpc import log as calls
from shared.rpc.status import from_rpc

SERVICES: Final = ("agentnet.inference.v1.InferenceService", "agentnet.memory.v1.MemoryService")
_TTL: Final = timedelta(minutes=5)
_DETACH_GRACE: Final = Duration(seconds=30)
_MEMORY_SECONDS: Final = 5.0
_ROLES: Final = {
    "system": message_pb2.ROLE_SYSTEM,
    "user": message_pb2.ROLE_USER,
    "assistant": message_pb2.ROLE_ASSISTANT,
}
_SAMPLED: Final = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed")


class GrpcInference:
    """agentnet.inference.v1."""

    def __init__(self, channel: grpc.aio.Channel, signer: Signer) -> None:
        self._stub = inference_rpc.InferenceServiceStub(channel)
        self._signer = signer

    async def generate(
        self, caller: Principal, utterance: Utterance
    ) -> AsyncGenerator[generation_pb2.GenerationEvent, None]:
        call = self._stub.Generate(_request(utterance), metadata=_metadata(self._signer, caller))
        async with _closing(call):
            async for answer in call:
                yield answer.event

    async def attach(
        self, caller: Principal, generation_id: str, *, after: int
    ) -> AsyncGenerator[generation_pb2.GenerationEvent, None]:
        request = inference.AttachRequest(generation_id=generation_id, after_sequence=after)
        call = self._stub.Attach(request, metadata=_metadata(self._signer, caller))
        async with _closing(call):
            async for answer in call:
                yield answer.event

    async def cancel(self, caller: Principal, generation_id: str) -> None:
        request = inference.CancelGenerationRequest(generation_id=generation_id)
        try:
            await _called(self._stub.CancelGeneration(request, metadata=_metadata(self._signer, caller)))
        except NotFound:
            return


class GrpcMemory:
    """agentnet.memory.v1."""

    def __init__(self, channel: grpc.aio.Channel, signer: Signer) -> None:
        self._stub = memory_rpc.MemoryServiceStub(channel)
        self._signer = signer

    async def recall(self, caller: Principal, *, session_id: str, agent: str, query: str) -> TurnMemory:
        request = memory.GetContextRequest(session_id=session_id, agent=agent, query=query)
        metadata = _metadata(self._signer, caller)
        try:
            found = await _called(self._stub.GetContext(request, metadata=metadata, timeout=_MEMORY_SECONDS))
        except MeshError as error:
            log.warning("memory.away", reason=error.reason_name)
            return TurnMemory(degraded=True)
        known = tuple(Known(one.memory.id, one.memory.content, one.score) for one in found.semantic)
        return TurnMemory(known, degraded=found.degraded)

    async def append(self, caller: Principal, *, session_id: str, turn_id: str, agent: str, content: str) -> None:
        request = memory.AppendTurnRequest(
            session_id=session_id, turn_id=turn_id, agent=agent, content=content, remember=True
        )
        metadata = _metadata(self._signer, caller)
        try:
            await _called(self._stub.AppendTurn(request, metadata=metadata, timeout=_MEMORY_SECONDS))
        except MeshError as error:
            log.warning("memory.turn_not_kept", reason=error.reason_name, turn_id=turn_id)


def _request(utterance: Utterance) -> inference.GenerateRequest:
    return inference.GenerateRequest(
        generation_id=utterance.generation_id,
        model=utterance.model,
        messages=[
            message_pb2.Message(role=_ROLES[line.role], content=[message_pb2.ContentPart(text=line.text)])
            for line in utterance.lines
        ],
        sampling=_sampling(utterance.agent.sampling),
        max_output_tokens=utterance.max_output_tokens,
        detach_grace=_DETACH_GRACE,
        session_id=utterance.session_id,
        agent=f"{utterance.agent.name}@{utterance.agent.version}",
        bundles=utterance.agent.monitors,
        response_format=_form(utterance.agent),
    )


def _form(agent: agent_pb2.Agent) -> message_pb2.ResponseFormat | None:
    """The form inference judges the output by: it asks once more for what does not fit, then fails (OUTPUT_INVALID)."""
    if not agent.output_schema.fields:
        return None
    return message_pb2.ResponseFormat(name=agent.name, json_schema=agent.output_schema)


def _sampling(found: agent_pb2.SamplingConfig) -> message_pb2.Sampling:
    given = {name: getattr(found, name) for name in _SAMPLED if found.HasField(name)}
    return message_pb2.Sampling(**given)


def _metadata(signer: Signer, caller: Principal) -> tuple[tuple[str, str], ...]:
    signed = (identity.HEADER, signer.sign(caller, _TTL))
    return (signed, (calls.SESSION_ID, calls.session_id())) if calls.session_id() else (signed,)


@asynccontextmanager
async def _closing(call: Any) -> AsyncIterator[None]:
    """A stream left early is cancelled; a broken one raises what the service said."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise from_rpc(error) from None
    finally:
        call.cancel()


async def _called(call: Any) -> Any:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise from_rpc(error) from None
