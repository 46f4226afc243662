"""Models: stream text, attach again, embed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from agentnet.client.calls import stream, unary
from agentnet.client.transport import Transport
from agentnet.inference.v1 import generation_pb2, inference_service_pb2, inference_service_pb2_grpc, message_pb2


class Inference:
    """The one door to models."""

    def __init__(self, transport: Transport) -> None:
        self._stub = inference_service_pb2_grpc.InferenceServiceStub(transport.channel)
        self._call = transport.options

    async def generate(
        self, request: inference_service_pb2.GenerateRequest
    ) -> AsyncIterator[generation_pb2.GenerationEvent]:
        """Starts a generation, or attaches to it when its id is known, and streams its events."""
        async for answer in stream(self._stub.Generate(request, **self._call(timeout=None))):
            yield answer.event

    async def attach(self, generation_id: str, *, after: int = 0) -> AsyncIterator[generation_pb2.GenerationEvent]:
        """Streams a generation that exists, after a sequence."""
        request = inference_service_pb2.AttachRequest(generation_id=generation_id, after_sequence=after)
        async for answer in stream(self._stub.Attach(request, **self._call(timeout=None))):
            yield answer.event

    async def stream_text(
        self, prompt: str, *, system: str = "", model: str = "", max_output_tokens: int = 0
    ) -> AsyncIterator[str]:
        """The text of one prompt's answer, piece by piece."""
        request = inference_service_pb2.GenerateRequest(
            model=model, messages=_messages(prompt, system), max_output_tokens=max_output_tokens
        )
        async for event in self.generate(request):
            if event.HasField("text"):
                yield event.text.text

    async def embed(self, texts: Sequence[str], *, model: str = "") -> Sequence[inference_service_pb2.Embedding]:
        """One unit vector a text, in order."""
        request = inference_service_pb2.EmbedRequest(model=model, texts=texts)
        return (await unary(self._stub.Embed(request, **self._call()))).embeddings

    async def models(self) -> Sequence[inference_service_pb2.Model]:
        """The models this mesh can call; at most 500."""
        request = inference_service_pb2.ListModelsRequest(page_size=500)
        return (await unary(self._stub.ListModels(request, **self._call()))).models


def _messages(prompt: str, system: str) -> list[message_pb2.Message]:
    said = [(message_pb2.ROLE_SYSTEM, system), (message_pb2.ROLE_USER, prompt)]
    return [message_pb2.Message(role=role, content=[message_pb2.ContentPart(text=text)]) for role, text in said if text]
