"""InferenceService: convert in, one call of the engine, convert out. Streams leave as the bytes the engine keeps."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import grpc

from agentnet.inference.v1 import downgrade_pb2, message_pb2
from agentnet.inference.v1 import inference_service_pb2 as pb
from agentnet.inference.v1 import inference_service_pb2_grpc as rpc
from services.inference import convert, prompt
from services.inference.admission import Order
from services.inference.counting import TokenCounter
from services.inference.document_reader import DocumentReader
from services.inference.embeddings.models import EmbeddingModels
from services.inference.engine import Engine
from services.inference.prompts.convert import reference
from services.inference.prompts.registry import PromptRegistry
from services.inference.providers.contract import Message
from services.inference.route import Model
from shared import fields
from shared.identity import current
from shared.ids import Ids

NAME = "agentnet.inference.v1.InferenceService"


class InferenceService(rpc.InferenceServiceServicer):
    """What does a model say?"""

    def __init__(
        self,
        engine: Engine,
        embeddings: EmbeddingModels,
        counter: TokenCounter,
        ids: Ids,
        *,
        reader: DocumentReader,
        prompts: PromptRegistry,
    ) -> None:
        self._engine = engine
        self._reader = reader
        self._prompts = prompts
        self._embeddings = embeddings
        self._counter = counter
        self._ids = ids

    async def Generate(  # type: ignore[override] # the bytes of GenerateResponse
        self, request: pb.GenerateRequest, context: Any
    ) -> AsyncIterator[bytes]:
        async with aclosing(await self._engine.start(current(), await self.order(request))) as events:
            async for event in events:
                yield event

    async def Attach(  # type: ignore[override] # the bytes of AttachResponse
        self, request: pb.AttachRequest, context: Any
    ) -> AsyncIterator[bytes]:
        generation_id, after = convert.attach(request)
        tenant, packing = current().tenant_id, request.packing
        async with aclosing(self._engine.attach(tenant, generation_id, after=after, packing=packing)) as events:
            async for event in events:
                yield event

    async def GenerateText(self, request: pb.GenerateTextRequest, context: Any) -> pb.GenerateTextResponse:
        data = await self._engine.whole(current(), await self.order(request.generation, whole=True))
        return convert.whole([pb.GenerateResponse.FromString(event).event for event in data])

    async def CancelGeneration(self, request: pb.CancelGenerationRequest, context: Any) -> pb.CancelGenerationResponse:
        generation_id = fields.identifier(request.generation_id, "generation_id")
        ended = await self._engine.cancel(current().tenant_id, generation_id)
        return pb.CancelGenerationResponse(already_ended=ended)

    async def CountTokens(self, request: pb.CountTokensRequest, context: Any) -> pb.CountTokensResponse:
        model = self._engine.admission.router.resolve(fields.text(request.model, "model", limit=128))
        count = await self._counter.count(model, await self._messages(request.messages))
        return pb.CountTokensResponse(input_tokens=count.tokens, estimated=count.estimated, model=model.name)

    async def DowngradeModel(
        self, request: downgrade_pb2.DowngradeModelRequest, context: Any
    ) -> downgrade_pb2.DowngradeModelResponse:
        from_model, order, lasts = convert.downgrade(request)
        for name in (from_model, order.to_model):
            self._engine.admission.router.resolve(name)
        await self._engine.admission.downgrades.order(current().tenant_id, from_model, order, lasts=lasts)
        return downgrade_pb2.DowngradeModelResponse()

    async def RestoreModel(
        self, request: downgrade_pb2.RestoreModelRequest, context: Any
    ) -> downgrade_pb2.RestoreModelResponse:
        from_model = fields.required(request.from_model, "from_model", limit=128)
        await self._engine.admission.downgrades.end(current().tenant_id, from_model)
        return downgrade_pb2.RestoreModelResponse()

    async def Embed(self, request: pb.EmbedRequest, context: Any) -> pb.EmbedResponse:
        model = self._embeddings.find(request.model)
        found = await model.embed(convert.texts(request), query=convert.is_query(request))
        return convert.embed_response(found, model.name, token_vectors=request.token_vectors)

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:
        admission = self._engine.admission
        shown, next_page_token = convert.models_page(request, admission.router.models())
        models = [await self._model(found) for found in shown]
        return pb.ListModelsResponse(models=models, next_page_token=next_page_token)

    async def _model(self, found: Model) -> pb.Model:
        admission = self._engine.admission
        breaker = await admission.breakers.state(found.provider)
        downgrade = await admission.downgrades.of(current().tenant_id, found.name)
        to_model = downgrade.to_model if downgrade else ""
        return convert.model(found, default=admission.router.default, breaker=breaker, downgraded_to=to_model)

    async def order(self, request: pb.GenerateRequest, *, whole: bool = False) -> Order:
        """What a request of the current caller means, who may want no stream. Raises InvalidArgument and
        PROMPT_NOT_FOUND.
        """
        order = convert.order(request, await self._messages(request.messages), self._ids, whole=whole)
        if not request.prompt_version:
            return order
        tenant, named = current().tenant_id, reference(request.prompt_version, "prompt_version")
        return replace(order, prompt=await self._prompts.of(tenant, named, order.generation_id))

    async def _messages(self, found: Sequence[message_pb2.Message]) -> tuple[Message, ...]:
        texts = {document.place: await self._text(document) for document in prompt.documents(found)}
        return prompt.messages(found, texts)

    async def _text(self, document: prompt.Attached) -> str:
        if document.plain:
            return prompt.plain_text(document)
        return (await self._reader.read(document.media.data, field=f"{document.field}.data")).text


def add_to_server(service: InferenceService, server: grpc.aio.Server) -> None:
    """Registers the service; its two streams without a serializer, since what they yield is serialised once for all."""
    streams: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Generate": grpc.unary_stream_rpc_method_handler(service.Generate, pb.GenerateRequest.FromString),
        "Attach": grpc.unary_stream_rpc_method_handler(service.Attach, pb.AttachRequest.FromString),
    }
    rpc.add_InferenceServiceServicer_to_server(service, server)
    server.add_registered_method_handlers(NAME, streams)  # in place of the generated ones
