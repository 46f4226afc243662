"""The OpenAI facade's service."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final

from google.api import httpbody_pb2

from agentnet.gateway.v1 import openai_service_pb2 as pb
from agentnet.gateway.v1 import openai_service_pb2_grpc
from services.gateway.facades import http, openai_chat, openai_media, openai_models, openai_responses, reading
from services.gateway.facades.answering import answered
from services.gateway.facades.openai_errors import SHAPE
from services.gateway.facades.router import Answerers
from services.gateway.responses.kept import Responses
from shared.errors import InvalidArgument, MeshError

_MOST_ITEMS: Final = 100
_USUAL_ITEMS: Final = 20


class OpenaiService(openai_service_pb2_grpc.OpenaiServiceServicer):
    """Chat completions, responses, embeddings, pictures, sounds, models."""

    def __init__(self, answerers: Answerers, responses: Responses) -> None:
        self._answerers = answerers
        self._responses = responses

    def CreateChatCompletion(self, request: httpbody_pb2.HttpBody, context: Any) -> http.Bodies:
        return answered(context, SHAPE, self._chat(request))

    def CreateResponse(self, request: httpbody_pb2.HttpBody, context: Any) -> http.Bodies:
        return answered(context, SHAPE, self._respond(request))

    def GetResponse(self, request: pb.GetResponseRequest, context: Any) -> http.Bodies:
        return answered(context, SHAPE, self._response(request))

    def CancelResponse(self, request: pb.CancelResponseRequest, context: Any) -> http.Bodies:
        return answered(context, SHAPE, self._cancelled(request.response_id))

    def DeleteResponse(self, request: pb.DeleteResponseRequest, context: Any) -> http.Bodies:
        return answered(context, SHAPE, self._forgotten(request.response_id))

    def ListResponseInputItems(self, request: pb.ListResponseInputItemsRequest, context: Any) -> http.Bodies:
        return answered(context, SHAPE, self._items(request))

    def CreateEmbedding(self, request: httpbody_pb2.HttpBody, context: Any) -> http.Bodies:
        return answered(context, SHAPE, self._embed(request))

    def CreateImage(self, request: httpbody_pb2.HttpBody, context: Any) -> http.Bodies:
        return answered(context, SHAPE, self._picture(request))

    def CreateTranscription(self, request: httpbody_pb2.HttpBody, context: Any) -> http.Bodies:
        return answered(context, SHAPE, self._transcribe(request))

    def CreateSpeech(self, request: httpbody_pb2.HttpBody, context: Any) -> http.Bodies:
        return answered(context, SHAPE, self._speak(request))

    def ListOpenaiModels(self, request: pb.ListOpenaiModelsRequest, context: Any) -> http.Bodies:
        return answered(context, SHAPE, self._models())

    def GetOpenaiModel(self, request: pb.GetOpenaiModelRequest, context: Any) -> http.Bodies:
        return answered(context, SHAPE, self._model(request.model))

    async def _chat(self, request: httpbody_pb2.HttpBody) -> http.Bodies:
        asked = openai_chat.read(reading.parse(request))
        pieces = self._answerers.answer(replace(asked.ask, whole=not asked.stream))
        if not asked.stream:
            yield http.document(await openai_chat.completion(pieces))
            return
        async for body in http.stream(openai_chat.chunks(pieces, include_usage=asked.include_usage)):
            yield body

    async def _respond(self, request: httpbody_pb2.HttpBody) -> http.Bodies:
        begun = await self._responses.begin(reading.parse(request))
        response, keep = begun.response, self._responses.keep
        await self._responses.began(begun)
        try:
            if begun.request.stream:
                async for body in http.stream(openai_responses.events(response, begun.pieces, keep)):
                    yield body
            elif begun.request.background:
                response.status = "queued"
                yield http.document(response.body())
            else:
                await openai_responses.complete(response, begun.pieces)
                await keep(response)
                yield http.document(response.body())
        except MeshError as error:
            await self._responses.undone(response, error)
            raise

    async def _response(self, request: pb.GetResponseRequest) -> http.Bodies:
        if not request.stream:
            yield http.document(await self._responses.body(request.response_id))
            return
        after = request.starting_after if request.HasField("starting_after") else -1
        response, pieces = await self._responses.read(request.response_id, after=after)
        events = openai_responses.events(response, pieces, self._responses.keep, after=after)
        async for body in http.stream(events):
            yield body

    async def _cancelled(self, response_id: str) -> http.Bodies:
        yield http.document(await self._responses.cancel(response_id))

    async def _forgotten(self, response_id: str) -> http.Bodies:
        await self._responses.forget(response_id)
        yield http.document({"id": response_id, "object": "response", "deleted": True})

    async def _items(self, request: pb.ListResponseInputItemsRequest) -> http.Bodies:
        found = list(await self._responses.items(request.response_id))
        if request.order not in {"", "asc", "desc"}:
            raise InvalidArgument("order must be asc or desc", field="order")
        if not 0 <= request.limit <= _MOST_ITEMS:
            raise InvalidArgument(f"limit must be between 1 and {_MOST_ITEMS}", field="limit")
        ordered = found if request.order == "asc" else found[::-1]
        names = [item["id"] for item in ordered]
        if request.after and request.after not in names:
            raise InvalidArgument(f"No item with id '{request.after}' found.", field="after")
        rest = ordered[names.index(request.after) + 1 :] if request.after else ordered
        yield http.document(openai_models.page(rest, request.limit or _USUAL_ITEMS))

    async def _embed(self, request: httpbody_pb2.HttpBody) -> http.Bodies:
        asked = openai_models.read_embedding(reading.parse(request))
        found = await self._answerers.models.embed(asked.model, asked.texts)
        yield http.document(openai_models.embeddings(found, asked))

    async def _picture(self, request: httpbody_pb2.HttpBody) -> http.Bodies:
        asked = openai_media.read_image(reading.parse(request))
        yield http.document(openai_media.images(await self._answerers.media.images(asked)))

    async def _transcribe(self, request: httpbody_pb2.HttpBody) -> http.Bodies:
        asked, form = await openai_media.read_transcription(request)
        yield openai_media.transcript(await self._answerers.media.transcribe(asked), form)

    async def _speak(self, request: httpbody_pb2.HttpBody) -> http.Bodies:
        asked = openai_media.read_speech(reading.parse(request))
        async with aclosing(self._answerers.media.speak(asked)) as sound:
            async for piece in sound:
                yield httpbody_pb2.HttpBody(content_type=piece.media_type, data=piece.data)

    async def _models(self) -> http.Bodies:
        yield http.document({"object": "list", "data": await self._listed()})

    async def _model(self, name: str) -> http.Bodies:
        yield http.document(openai_models.one_model(await self._listed(), name))

    async def _listed(self) -> Any:
        return openai_models.models(await self._answerers.models.models(), await self._answerers.agents.agents())
