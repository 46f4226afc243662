"""inference and memory over the mesh."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from typing import Any, Final

import grpc
from google.protobuf import json_format, struct_pb2
from google.protobuf.duration_pb2 import Duration

from agentnet.inference.v1 import generation_pb2, message_pb2
from agentnet.inference.v1 import inference_service_pb2 as inference
from agentnet.inference.v1 import inference_service_pb2_grpc as inference_rpc
from agentnet.memory.v1 import conversation_service_pb2 as conversation
from agentnet.memory.v1 import conversation_service_pb2_grpc as conversation_rpc
from agentnet.memory.v1 import memory_pb2
from agentnet.memory.v1 import memory_service_pb2 as memory
from agentnet.memory.v1 import memory_service_pb2_grpc as memory_rpc
from agentnet.orchestrator.v1 import agent_pb2, turn_pb2
from services.orchestrator.peers import TurnMemory, Utterance
from services.orchestrator.prompts import Known
from shared import identity
from shared.errors import FailedPrecondition, MeshError, NotFound, Reason, from_status
from shared.identity import CredentialKind, Principal, Signer
from shared.log import log
from shared.rpc import log as calls
from shared.rpc.status import from_rpc

SERVICES: Final = (
    "agentnet.inference.v1.InferenceService",
    "agentnet.memory.v1.MemoryService",
    "agentnet.memory.v1.ConversationService",
    "agentnet.tools.v1.ToolService",
)
_TTL: Final = timedelta(minutes=5)
_DETACH_GRACE: Final = Duration(seconds=30)
_MEMORY_SECONDS: Final = 5.0
# What is found comes alone: of its own session a turn knows the log.
_NO_TURNS: Final = -1
_SILENT_SECONDS: Final = 30.0
# Many turns are embedded together.
_KEEP_SECONDS: Final = 10.0
_CHARACTERS_AT_ONCE: Final = 500_000
_EMBED_SECONDS: Final = 20.0
_EMBEDDED_CHARACTERS: Final = 8_000
_WINDOWS_SECONDS: Final = 300.0
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
        self._windows: dict[str, int] = {}
        self._stale_at = 0.0

    async def generate(
        self, caller: Principal, utterance: Utterance
    ) -> AsyncGenerator[generation_pb2.GenerationEvent, None]:
        request, begun, able = _request(utterance), False, True
        try:
            async with aclosing(self._generated(request, caller)) as events:
                async for event in events:
                    begun = True
                    yield event
        except FailedPrecondition as error:
            able = begun or utterance.form is None or error.reason != Reason.ERROR_REASON_MODEL_UNABLE
            if able:
                raise
        if not able:
            # The model cannot be held to a schema: the prompt asks for it, and the answer is read strictly here.
            request.ClearField("response_format")
            async with aclosing(self._generated(request, caller)) as events:
                async for event in events:
                    yield event

    async def _generated(
        self, request: inference.GenerateRequest, caller: Principal
    ) -> AsyncGenerator[generation_pb2.GenerationEvent, None]:
        call = self._stub.Generate(request, metadata=signed(self._signer, caller))
        async with closing(call):
            async for answer in call:
                yield answer.event
                for event in answer.more:
                    yield event

    async def attach(
        self, caller: Principal, generation_id: str, *, after: int
    ) -> AsyncGenerator[generation_pb2.GenerationEvent, None]:
        request = inference.AttachRequest(generation_id=generation_id, after_sequence=after, packing=True)
        call = self._stub.Attach(request, metadata=signed(self._signer, caller))
        async with closing(call):
            async for answer in call:
                yield answer.event
                for event in answer.more:
                    yield event

    async def cancel(self, caller: Principal, generation_id: str) -> None:
        request = inference.CancelGenerationRequest(generation_id=generation_id)
        try:
            await called(self._stub.CancelGeneration(request, metadata=signed(self._signer, caller)))
        except NotFound:
            return

    async def embed(self, caller: Principal, texts: Sequence[str]) -> list[Sequence[float]]:
        request = inference.EmbedRequest(texts=[text[:_EMBEDDED_CHARACTERS] for text in texts])
        metadata = signed(self._signer, caller)
        found = await called(self._stub.Embed(request, metadata=metadata, timeout=_EMBED_SECONDS))
        return [embedding.values for embedding in found.embeddings]

    async def context_tokens(self, caller: Principal, model: str) -> int:
        if time.monotonic() > self._stale_at:
            await self._look(caller)
        return self._windows.get(model, 0)

    async def _look(self, caller: Principal) -> None:
        """What models there are changes rarely; while inference is away, what was known holds on."""
        self._stale_at = time.monotonic() + _WINDOWS_SECONDS
        metadata = signed(self._signer, caller)
        try:
            request = inference.ListModelsRequest(page_size=500)
            found = await called(self._stub.ListModels(request, metadata=metadata, timeout=_MEMORY_SECONDS))
        except MeshError as error:
            log.warning("models.unknown", reason=error.reason_name)
            return
        self._windows = {model.name: model.context_tokens for model in found.models}
        default = next((model.context_tokens for model in found.models if model.is_default), 0)
        self._windows[""] = default


class GrpcMemory:
    """agentnet.memory.v1."""

    def __init__(self, channel: grpc.aio.Channel, signer: Signer) -> None:
        self._stub = memory_rpc.MemoryServiceStub(channel)
        self._conversations = conversation_rpc.ConversationServiceStub(channel)
        self._signer = signer
        self._silent_until = -math.inf

    async def recall(self, caller: Principal, *, session_id: str, agent: str, query: str) -> TurnMemory:
        """A mesh that searches for nothing is asked now and then whether that is still so."""
        if time.monotonic() < self._silent_until:
            return TurnMemory()
        request = memory.GetContextRequest(session_id=session_id, agent=agent, query=query, max_turns=_NO_TURNS)
        metadata = signed(self._signer, caller)
        try:
            found = await called(self._stub.GetContext(request, metadata=metadata, timeout=_MEMORY_SECONDS))
        except MeshError as error:
            log.warning("memory.away", reason=error.reason_name)
            return TurnMemory(degraded=True)
        if found.unsearched:
            self._silent_until = time.monotonic() + _SILENT_SECONDS
        return TurnMemory(tuple(map(_known, found.semantic)), degraded=found.degraded)

    async def append(self, tenant: str, turns: Sequence[turn_pb2.Turn]) -> None:
        """Hands finished turns over to be remembered, in the name of the mesh: who spoke stands in each. Memory being
        away is logged.
        """
        for some in _apart(turns):
            request = conversation.AppendTurnsRequest(turns=map(_said, some))
            caller = Principal(tenant, "orchestrator", frozenset({"operator"}), CredentialKind.SERVICE)
            metadata = signed(self._signer, caller)
            try:
                answer = await called(
                    self._conversations.AppendTurns(request, metadata=metadata, timeout=_KEEP_SECONDS)
                )
            except MeshError as error:
                log.warning("memory.turns_not_kept", reason=error.reason_name, turns=len(some))
                continue
            for refused in answer.refused:
                reason = from_status(refused.status).reason_name
                log.warning("memory.turn_not_kept", reason=reason, turn_id=refused.turn_id)


def _apart(turns: Sequence[turn_pb2.Turn]) -> Iterator[list[turn_pb2.Turn]]:
    """In their order, as many at a time as a message has room for."""
    some, room = list[turn_pb2.Turn](), _CHARACTERS_AT_ONCE
    for turn in turns:
        if some and len(turn.content) > room:
            yield some
            some, room = [], _CHARACTERS_AT_ONCE
        some.append(turn)
        room -= len(turn.content)
    if some:
        yield some


def _said(turn: turn_pb2.Turn) -> memory.AppendTurnRequest:
    agent = turn.agent.partition("@")[0]
    return memory.AppendTurnRequest(
        session_id=turn.session_id, turn_id=turn.id, agent=agent, content=turn.content, remember=True
    )


def _known(found: memory.ScoredMemory) -> Known:
    one = found.memory
    return Known(one.id, one.content, found.score, episodic=one.memory_type == memory_pb2.MEMORY_TYPE_EPISODIC)


def _request(utterance: Utterance) -> inference.GenerateRequest:
    return inference.GenerateRequest(
        generation_id=utterance.generation_id,
        model=utterance.model,
        messages=[*(_message(_ROLES[line.role], line.text) for line in utterance.lines), *_exchanged(utterance)],
        sampling=_sampling(utterance.agent.sampling),
        max_output_tokens=utterance.max_output_tokens,
        detach_grace=_DETACH_GRACE,
        session_id=utterance.session_id,
        agent=f"{utterance.agent.name}@{utterance.agent.version}",
        bundles=utterance.agent.monitors,
        tools=utterance.tools,
        tool_choice=None if utterance.may_call else message_pb2.ToolChoice(mode=message_pb2.TOOL_MODE_NONE),
        response_format=_response_format(utterance),
        team=utterance.team,
        sub_agent=utterance.sub_agent,
        packing=True,
        override_token=utterance.override_token,
        gather=Duration(nanos=round(utterance.gather * 1e9) % 10**9, seconds=int(utterance.gather)),
    )


def _message(role: message_pb2.Role.ValueType, text: str) -> message_pb2.Message:
    return message_pb2.Message(role=role, content=[message_pb2.ContentPart(text=text)])


def _exchanged(utterance: Utterance) -> Iterator[message_pb2.Message]:
    """What was said between the model and its tools in this turn."""
    for exchange in utterance.exchanges:
        asked = [message_pb2.ContentPart(text=exchange.text)] if exchange.text else []
        for call in exchange.calls:
            made = message_pb2.ToolCall(id=call.call_id, name=call.tool, arguments=call.arguments)
            asked.append(message_pb2.ContentPart(tool_call=made))
        yield message_pb2.Message(role=message_pb2.ROLE_ASSISTANT, content=asked)
        answers = [
            message_pb2.ToolResult(tool_call_id=call.call_id, content=call.result or "", is_error=call.failed)
            for call in exchange.calls
        ]
        parts = [message_pb2.ContentPart(tool_result=answer) for answer in answers]
        yield message_pb2.Message(role=message_pb2.ROLE_TOOL, content=parts)


def _response_format(utterance: Utterance) -> message_pb2.ResponseFormat | None:
    """The form inference judges the output by: what was asked for, or else what the agent always gives."""
    if utterance.form:
        schema = json_format.ParseDict(dict(utterance.form.schema), struct_pb2.Struct())
        return message_pb2.ResponseFormat(json_schema=schema, name=utterance.form.name)
    schema, name = utterance.agent.output_schema, utterance.agent.name
    return message_pb2.ResponseFormat(json_schema=schema, name=name) if schema.fields else None


def _sampling(found: agent_pb2.SamplingConfig) -> message_pb2.Sampling:
    given = {name: getattr(found, name) for name in _SAMPLED if found.HasField(name)}
    return message_pb2.Sampling(**given)


def signed(signer: Signer, caller: Principal) -> tuple[tuple[str, str], ...]:
    signed = (identity.HEADER, signer.sign(caller, _TTL))
    return (signed, (calls.SESSION_ID, calls.session_id())) if calls.session_id() else (signed,)


@asynccontextmanager
async def closing(call: Any) -> AsyncIterator[None]:
    """A stream left early is cancelled; a broken one raises what the service said."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise from_rpc(error) from None
    finally:
        call.cancel()


async def called(call: Any) -> Any:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise from_rpc(error) from None
