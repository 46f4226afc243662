"""The mesh's models as answerers: agentnet.inference.v1, with the caller's identity, limits and the tokens' count."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final

import grpc

from agentnet.common.v1 import usage_pb2
from agentnet.inference.v1 import generation_pb2, queue_service_pb2_grpc
from agentnet.inference.v1 import inference_service_pb2 as pb
from agentnet.inference.v1 import inference_service_pb2_grpc as rpc
from agentnet.inference.v1 import queue_service_pb2 as queue
from services.gateway.facades.ask import AnswerUndone, Ask, Began, Ended, Pieces, Reason, Said, Spent, Used
from services.gateway.facades.generation import generation
from services.gateway.limits import Limits
from shared.errors import from_failure
from shared.identity import current
from shared.rpc.status import from_rpc

SERVICES: Final = ("agentnet.inference.v1.InferenceService", "agentnet.inference.v1.QueueService")
_MOST: Final = 500
_REASONS: Final = {
    generation_pb2.FINISH_REASON_STOP: Reason.STOP,
    generation_pb2.FINISH_REASON_LENGTH: Reason.LENGTH,
    generation_pb2.FINISH_REASON_CONTENT_FILTER: Reason.FILTER,
    generation_pb2.FINISH_REASON_TOOL_CALLS: Reason.TOOLS,
}
Events = AsyncGenerator[generation_pb2.GenerationEvent, None]


class Models:
    """Answers by generating."""

    def __init__(self, channel: grpc.aio.Channel, limits: Limits) -> None:
        self._stub = rpc.InferenceServiceStub(channel)
        self._queue = queue_service_pb2_grpc.QueueServiceStub(channel)
        self._limits = limits

    async def answer(self, ask: Ask) -> Pieces:
        tenant = current().tenant_id
        await self._limits.use_model(tenant, ask.model)
        events = self._generate(generation(ask))
        held = ask.whole or ask.schema is not None  # what does not fit is asked for again, and none of it is shown
        async with aclosing(pieces(settled(events) if held else events)) as found:
            async for piece in found:
                yield piece
                if isinstance(piece, Ended):
                    await self._limits.spent(tenant, piece.spent.total)

    async def attach(self, generation_id: str, *, after: int = 0) -> Events:
        """A generation's events, live or past. Raises MeshError."""
        call = self._stub.Attach(pb.AttachRequest(generation_id=generation_id, after_sequence=after, packing=True))
        async with closing(call):
            async for answer in call:
                for event in (answer.event, *answer.more):
                    yield event

    async def submit(self, ask: Ask) -> None:
        """Puts it into inference's durable queue. Raises MeshError."""
        await self._limits.use_model(current().tenant_id, ask.model)
        await self._unary(self._queue.SubmitGeneration(queue.SubmitGenerationRequest(generation=generation(ask))))

    async def submitted(self, generation_id: str) -> queue.GetSubmittedGenerationResponse:
        """How far it is. Raises MeshError."""
        request = queue.GetSubmittedGenerationRequest(generation_id=generation_id)
        found: queue.GetSubmittedGenerationResponse = await self._unary(self._queue.GetSubmittedGeneration(request))
        return found

    async def call_off(self, generation_id: str) -> bool:
        """False when it had ended. Raises MeshError."""
        request = queue.CancelSubmittedGenerationRequest(generation_id=generation_id)
        return not (await self._unary(self._queue.CancelSubmittedGeneration(request))).already_ended

    async def count(self, spent: Spent) -> None:
        """Takes what was spent without a caller from the tenant's tokens."""
        await self._limits.spent(current().tenant_id, spent.total)

    async def embed(self, model: str, texts: Sequence[str]) -> pb.EmbedResponse:
        """Raises MeshError."""
        tenant = current().tenant_id
        await self._limits.use_model(tenant, model)
        found: pb.EmbedResponse = await self._unary(self._stub.Embed(pb.EmbedRequest(model=model, texts=texts)))
        await self._limits.spent(tenant, found.usage.input_tokens)
        return found

    async def models(self) -> Sequence[pb.Model]:
        """All of them, by name."""
        found: pb.ListModelsResponse = await self._unary(self._stub.ListModels(pb.ListModelsRequest(page_size=_MOST)))
        return found.models

    async def _generate(self, request: pb.GenerateRequest) -> Events:
        call = self._stub.Generate(request)
        async with closing(call):
            async for answer in call:
                for event in (answer.event, *answer.more):
                    yield event

    async def _unary(self, call: Any) -> Any:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error) from error


async def settled(events: Events) -> Events:
    """A generation's beginning, and the rest when it is over, without what a new start or a failure made void."""
    held: list[generation_pb2.GenerationEvent] = []
    async with aclosing(events):
        async for event in events:
            match event.WhichOneof("event"):
                case "started":
                    yield event
                case "failed":
                    held = [event]
                case "failover" if event.failover.restarted:
                    held = []
                case _:
                    held.append(event)
    for event in held:
        yield event


async def pieces(events: Events) -> Pieces:
    """What a generation's events say to a reader who cannot take anything back.

    Raises the MeshError of a generation that failed, and AnswerUndone when it starts anew after some of it was shown.
    """
    began = said = False
    async with aclosing(events):
        async for event in events:
            match event.WhichOneof("event"):
                case "started" if not began:
                    began = True
                    tokens = event.started.input_tokens
                    yield Began(event.generation_id, event.started.model, event.time.seconds, tokens)
                case "text":
                    said = True
                    yield Said(event.text.text)
                case "tool_call":
                    said, call = True, event.tool_call.tool_call
                    yield Used(event.tool_call.index, call.arguments, call.id, call.name)
                case "failover" if said and event.failover.restarted:
                    raise AnswerUndone("the answer broke off and would start anew; ask again")
                case "finished":
                    yield ended(event.finished)
                case "failed":
                    raise from_failure(event.failed.failure)


def ended(finished: generation_pb2.GenerationFinished) -> Ended:
    return Ended(_REASONS.get(finished.finish_reason, Reason.STOP), spent(finished.usage))


def spent(usage: usage_pb2.Usage) -> Spent:
    return Spent(usage.input_tokens, usage.output_tokens, usage.cached_input_tokens, usage.reasoning_tokens)


@asynccontextmanager
async def closing(call: Any) -> AsyncIterator[None]:
    """Cancels the call when its reader leaves early, and turns its errors into ours."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise from_rpc(error) from error
    finally:
        call.cancel()
