"""The mesh's pictures and sounds: agentnet.inference.v1.MediaService, with the caller's identity and limits."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Final

import grpc

from agentnet.inference.v1 import media_service_pb2 as pb
from agentnet.inference.v1 import media_service_pb2_grpc as rpc
from services.gateway.facades.models import closing
from services.gateway.limits import Limits
from shared.identity import current

SERVICE: Final = "agentnet.inference.v1.MediaService"


@dataclass(frozen=True, slots=True)
class Made:
    """Pictures and what they took."""

    images: Sequence[pb.GeneratedImage]
    spent: pb.MediaSpent


class Media:
    """Asks for them. Raises MeshError."""

    def __init__(self, channel: grpc.aio.Channel, limits: Limits) -> None:
        self._stub = rpc.MediaServiceStub(channel)
        self._limits = limits

    async def images(self, request: pb.GenerateImagesRequest) -> Made:
        await self._limits.use_model(current().tenant_id, request.model)
        call = self._stub.GenerateImages(request)
        async with closing(call):
            *made, last = [answer async for answer in call]
        await self._spent(last.spent)
        return Made([answer.image for answer in made], last.spent)

    async def transcribe(self, request: pb.TranscribeRequest) -> pb.TranscribeResponse:
        await self._limits.use_model(current().tenant_id, request.model)
        call = self._stub.Transcribe(request)
        async with closing(call):
            found: pb.TranscribeResponse = await call
        await self._spent(found.spent)
        return found

    async def speak(self, request: pb.SpeakRequest) -> AsyncGenerator[pb.SpokenAudio, None]:
        """The sound as it comes."""
        await self._limits.use_model(current().tenant_id, request.model)
        call = self._stub.Speak(request)
        async with closing(call):
            async for answer in call:
                if answer.HasField("audio"):
                    yield answer.audio
                else:
                    await self._spent(answer.spent)

    async def _spent(self, spent: pb.MediaSpent) -> None:
        await self._limits.spent(current().tenant_id, spent.usage.input_tokens + spent.usage.output_tokens)
