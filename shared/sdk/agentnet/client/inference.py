"""Models: stream text, attach again, embed."""

from __future__ import annotations

import functools
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, suppress
from datetime import timedelta

from agentnet.client.calls import resumed, stream, unary
from agentnet.client.errors import AgentNetError, from_failure
from agentnet.client.transport import Transport
from agentnet.inference.v1 import (
    embedding_pb2,
    generation_pb2,
    inference_service_pb2,
    inference_service_pb2_grpc,
    message_pb2,
)

_GRACE = timedelta(seconds=10)
_PATIENCE_SECONDS = 10.0


class Inference:
    """The one door to models."""

    def __init__(self, transport: Transport) -> None:
        self._stub = inference_service_pb2_grpc.InferenceServiceStub(transport.channel)
        self._call = transport.options

    async def generate(
        self, request: inference_service_pb2.GenerateRequest
    ) -> AsyncIterator[generation_pb2.GenerationEvent]:
        """Starts a generation, or attaches to it when its id is known, and streams its events.

        A connection that breaks is made again and goes on after the last event, for up to 10 s. Leaving the iterator
        early cancels the generation, unless the request has a `detach_grace` of its own.
        """
        asked = inference_service_pb2.GenerateRequest()
        asked.CopyFrom(request)
        asked.generation_id = request.generation_id or f"gen_{uuid.uuid4().hex}"
        if not request.HasField("detach_grace"):
            asked.detach_grace.FromTimedelta(_GRACE)
        ended = False
        try:
            async with aclosing(self._generated(asked)) as events:
                async for event in events:
                    ended = is_last(event)
                    yield event
        finally:
            if not (ended or request.HasField("detach_grace")):
                await self._cancel_quietly(asked.generation_id)

    async def attach(self, generation_id: str, *, after: int = 0) -> AsyncIterator[generation_pb2.GenerationEvent]:
        """Streams a generation that exists, after a sequence; goes on by itself where a connection breaks."""
        open_at = functools.partial(self._attached, generation_id)
        async for event in resumed(open_at, after=after, is_last=is_last, patience_seconds=_PATIENCE_SECONDS):
            yield event

    async def cancel(self, generation_id: str) -> None:
        """Calls a generation off; what was spent is settled."""
        request = inference_service_pb2.CancelGenerationRequest(generation_id=generation_id)
        await unary(self._stub.CancelGeneration(request, **self._call()))

    async def stream_text(
        self, prompt: str, *, system: str = "", model: str = "", max_output_tokens: int = 0
    ) -> AsyncIterator[str]:
        """The text of one prompt's answer, piece by piece.

        Raises AgentNetError when the generation fails, and when another model starts the text anew after some of it was
        given: read `generate` to follow that.
        """
        request = inference_service_pb2.GenerateRequest(
            model=model, messages=_messages(prompt, system), max_output_tokens=max_output_tokens
        )
        given = False
        async for event in self.generate(request):
            if event.HasField("text"):
                given = True
                yield event.text.text
            elif event.HasField("failed") or (event.failover.restarted and given):
                raise from_failure(event.failed.failure if event.HasField("failed") else event.failover.failure)

    async def count_tokens(self, prompt: str, *, system: str = "", model: str = "") -> int:
        """Tokens of a prompt as the model's tokenizer counts them, or as they are estimated without one."""
        request = inference_service_pb2.CountTokensRequest(model=model, messages=_messages(prompt, system))
        return (await unary(self._stub.CountTokens(request, **self._call()))).input_tokens

    async def embed(
        self, texts: Sequence[str], *, model: str = "", query: bool = False
    ) -> Sequence[inference_service_pb2.Embedding]:
        """One unit vector a text, in order; `query`: they are what passages are searched with."""
        purpose = embedding_pb2.EMBEDDING_PURPOSE_QUERY if query else embedding_pb2.EMBEDDING_PURPOSE_PASSAGE
        request = inference_service_pb2.EmbedRequest(model=model, texts=texts, purpose=purpose)
        return (await unary(self._stub.Embed(request, **self._call()))).embeddings

    async def models(self) -> Sequence[inference_service_pb2.Model]:
        """The models this mesh can call; at most 500."""
        request = inference_service_pb2.ListModelsRequest(page_size=500)
        return (await unary(self._stub.ListModels(request, **self._call()))).models

    async def _generated(
        self, request: inference_service_pb2.GenerateRequest
    ) -> AsyncGenerator[generation_pb2.GenerationEvent, None]:
        def open_at(after: int) -> AsyncIterator[generation_pb2.GenerationEvent]:
            return self._attached(request.generation_id, after) if after else self._started(request)

        async for event in resumed(open_at, after=0, is_last=is_last, patience_seconds=_PATIENCE_SECONDS):
            yield event

    async def _started(
        self, request: inference_service_pb2.GenerateRequest
    ) -> AsyncIterator[generation_pb2.GenerationEvent]:
        async for answer in stream(self._stub.Generate(request, **self._call(timeout=None))):
            for event in (answer.event, *answer.more):
                yield event

    async def _attached(self, generation_id: str, after: int) -> AsyncIterator[generation_pb2.GenerationEvent]:
        request = inference_service_pb2.AttachRequest(generation_id=generation_id, after_sequence=after, packing=True)
        async for answer in stream(self._stub.Attach(request, **self._call(timeout=None))):
            for event in (answer.event, *answer.more):
                yield event

    async def _cancel_quietly(self, generation_id: str) -> None:
        """It may have ended, or never have begun."""
        with suppress(AgentNetError):
            await self.cancel(generation_id)


def is_last(event: generation_pb2.GenerationEvent) -> bool:
    """Whether a generation ends with this event."""
    return event.HasField("finished") or event.HasField("failed")


def _messages(prompt: str, system: str) -> list[message_pb2.Message]:
    said = [(message_pb2.ROLE_SYSTEM, system), (message_pb2.ROLE_USER, prompt)]
    return [message_pb2.Message(role=role, content=[message_pb2.ContentPart(text=text)]) for role, text in said if text]
