"""MediaService: convert in, one order to the studio, convert out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Final

from agentnet.inference.v1 import media_service_pb2 as pb
from agentnet.inference.v1 import media_service_pb2_grpc as rpc
from services.inference.media import convert
from services.inference.media.studio import Studio
from services.inference.peers import Payer
from shared.identity import current
from shared.ids import Ids

NAME: Final = "agentnet.inference.v1.MediaService"


class MediaService(rpc.MediaServiceServicer):
    """What can be seen and heard?"""

    def __init__(self, studio: Studio, ids: Ids) -> None:
        self._studio = studio
        self._ids = ids

    async def GenerateImages(
        self, request: pb.GenerateImagesRequest, context: Any
    ) -> AsyncIterator[pb.GenerateImagesResponse]:
        order, name = convert.images(request), convert.model(request.model)
        rules = convert.bundles_and_override(request.attribution)
        async with aclosing(self._studio.images(self._payer(request.attribution), name, order, *rules)) as made:
            async for piece in made:
                yield convert.image_response(piece)

    async def Transcribe(self, request: pb.TranscribeRequest, context: Any) -> pb.TranscribeResponse:
        order, name = convert.transcription(request), convert.model(request.model)
        rules = convert.bundles_and_override(request.attribution)
        found = await self._studio.transcribe(self._payer(request.attribution), name, order, *rules)
        return convert.transcript(*found)

    async def Speak(self, request: pb.SpeakRequest, context: Any) -> AsyncIterator[pb.SpeakResponse]:
        order, name = convert.speech(request), convert.model(request.model)
        rules = convert.bundles_and_override(request.attribution)
        async with aclosing(self._studio.speak(self._payer(request.attribution), name, order, *rules)) as made:
            async for piece in made:
                yield convert.spoken(order.format, piece)

    def _payer(self, attribution: pb.Attribution) -> Payer:
        return convert.payer(current(), self._ids.new("med"), attribution)
