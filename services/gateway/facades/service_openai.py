"""The OpenAI facade's service."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any, Final

from google.api import httpbody_pb2

from agentnet.gateway.v1 import openai_service_pb2 as pb
from agentnet.gateway.v1 import openai_service_pb2_grpc
from services.gateway.facades import http, openai_chat, openai_media, openai_models, openai_responses, reading
from services.gateway.facades.agents import PREFIX as AGENT
from services.gateway.facades.answering import answered
from services.gateway.facades.ask import Pieces, Unsupported
from services.gateway.facades.models import pieces as read_pieces
from services.gateway.facades.openai_errors import SHAPE
from services.gateway.facades.openai_responses import PREFIX, Response
from services.gateway.facades.router import Answerers
from shared.ids import Ids

_GENERATION: Final = "gen"


class OpenaiService(openai_service_pb2_grpc.OpenaiServiceServicer):
    """Chat completions, responses, embeddings, pictures, sounds, models."""

    def __init__(self, answerers: Answerers, ids: Ids) -> None:
        self._answerers = answerers
        self._ids = ids

    def CreateChatCompletion(self, request: httpbody_pb2.HttpBody, context: Any) -> http.Bodies:
        return answered(context, SHAPE, self._chat(request))

    def CreateResponse(self, request: httpbody_pb2.HttpBody, context: Any) -> http.Bodies:
        return answered(context, SHAPE, self._respond(request))

    def GetResponse(self, request: pb.GetResponseRequest, context: Any) -> http.Bodies:
        return answered(context, SHAPE, self._response(request))

    def CancelResponse(self, request: pb.CancelResponseRequest, context: Any) -> http.Bodies:
        return answered(context, SHAPE, self._cancelled(request.response_id))

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
        pieces = self._answerers.answer(asked.ask)
        if not asked.stream:
            yield http.document(await openai_chat.completion(pieces))
            return
        async for body in http.stream(openai_chat.chunks(pieces, include_usage=asked.include_usage)):
            yield body

    async def _respond(self, request: httpbody_pb2.HttpBody) -> http.Bodies:
        generation = self._ids.new(_GENERATION)
        asked = openai_responses.read(reading.parse(request), generation)
        if asked.background and asked.ask.model.startswith(AGENT):
            raise Unsupported("background", "is not for agents; start a session")
        pieces, response = self._answerers.answer(asked.ask), Response(_response_id(generation))
        if asked.stream:
            async for body in http.stream(openai_responses.events(response, pieces)):
                yield body
        elif asked.background:
            response.take(await anext(pieces))
            await pieces.aclose()  # the generation goes on for its grace without a reader
            yield http.document(response.body())
        else:
            yield http.document(await openai_responses.complete(response, pieces))

    async def _response(self, request: pb.GetResponseRequest) -> http.Bodies:
        response = Response(request.response_id)
        if request.stream:
            after = request.starting_after if request.HasField("starting_after") else -1
            events = openai_responses.events(response, self._attached(request.response_id), after=after)
            async for body in http.stream(events):
                yield body
            return
        pieces = self._attached(request.response_id)
        yield http.document(await openai_responses.so_far(response, pieces))

    async def _cancelled(self, response_id: str) -> http.Bodies:
        await self._answerers.models.cancel(_generation_id(response_id))
        response = Response(response_id, status="cancelled")
        yield http.document(response.body())

    async def _attached(self, response_id: str) -> Pieces:
        async with aclosing(read_pieces(self._answerers.models.attach(_generation_id(response_id)))) as found:
            async for piece in found:
                yield piece

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


def _response_id(generation_id: str) -> str:
    return generation_id.replace(f"{_GENERATION}_", PREFIX, 1)


def _generation_id(response_id: str) -> str:
    return response_id.replace(PREFIX, f"{_GENERATION}_", 1)
