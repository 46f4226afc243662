"""InferenceService: convert in, one call of the engine, convert out. Streams leave as the bytes the engine keeps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from typing import Any

import grpc

from agentnet.inference.v1 import inference_service_pb2 as pb
from agentnet.inference.v1 import inference_service_pb2_grpc as rpc
from services.inference import convert
from services.inference.embeddings.contract import Embedder
from services.inference.engine import Engine
from shared import fields
from shared.identity import current
from shared.ids import Ids

NAME = "agentnet.inference.v1.InferenceService"


class InferenceService(rpc.InferenceServiceServicer):
    """What does a model say?"""

    def __init__(self, engine: Engine, embedder: Embedder, ids: Ids) -> None:
        self._engine = engine
        self._embedder = embedder
        self._ids = ids

    async def Generate(  # type: ignore[override] # the bytes of GenerateResponse
        self, request: pb.GenerateRequest, context: Any
    ) -> AsyncIterator[bytes]:
        async with aclosing(self._engine.start(current(), convert.order(request, self._ids))) as events:
            async for event in events:
                yield event

    async def Attach(  # type: ignore[override] # the bytes of AttachResponse
        self, request: pb.AttachRequest, context: Any
    ) -> AsyncIterator[bytes]:
        generation_id, after = convert.attach(request)
        async with aclosing(self._engine.attach(current().tenant_id, generation_id, after=after)) as events:
            async for event in events:
                yield event

    async def GenerateText(self, request: pb.GenerateTextRequest, context: Any) -> pb.GenerateTextResponse:
        order = replace(convert.order(request.generation, self._ids), detach_grace=timedelta())
        data = [event async for event in self._engine.start(current(), order)]
        return convert.whole([pb.GenerateResponse.FromString(event).event for event in data])

    async def CancelGeneration(self, request: pb.CancelGenerationRequest, context: Any) -> pb.CancelGenerationResponse:
        generation_id = fields.identifier(request.generation_id, "generation_id")
        ended = await self._engine.cancel(current().tenant_id, generation_id)
        return pb.CancelGenerationResponse(already_ended=ended)

    async def Embed(self, request: pb.EmbedRequest, context: Any) -> pb.EmbedResponse:
        return convert.embed_response(await self._embedder.embed(convert.texts(request)))

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:
        router = self._engine.router
        return convert.models_response(request, router.models(), default=router.default)


def add_to_server(service: InferenceService, server: grpc.aio.Server) -> None:
    """Registers the service; its two streams without a serializer, since what they yield is serialised once for all."""
    streams: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Generate": grpc.unary_stream_rpc_method_handler(service.Generate, pb.GenerateRequest.FromString),
        "Attach": grpc.unary_stream_rpc_method_handler(service.Attach, pb.AttachRequest.FromString),
    }
    rpc.add_InferenceServiceServicer_to_server(service, server)
    server.add_registered_method_handlers(NAME, streams)  # in place of the generated ones
