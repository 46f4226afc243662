"""The Anthropic facade's service."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from google.api import httpbody_pb2

from agentnet.gateway.v1 import anthropic_service_pb2_grpc
from services.gateway.facades import anthropic, http, reading
from services.gateway.facades.answering import answered
from services.gateway.facades.anthropic_errors import SHAPE
from services.gateway.facades.router import Answerers


class AnthropicService(anthropic_service_pb2_grpc.AnthropicServiceServicer):
    """Messages."""

    def __init__(self, answerers: Answerers) -> None:
        self._answerers = answerers

    def CreateMessage(self, request: httpbody_pb2.HttpBody, context: Any) -> http.Bodies:
        return answered(context, SHAPE, self._message(request))

    async def _message(self, request: httpbody_pb2.HttpBody) -> http.Bodies:
        asked = anthropic.read(reading.parse(request))
        pieces = self._answerers.answer(replace(asked.ask, whole=not asked.stream))
        if not asked.stream:
            yield http.document(await anthropic.message(pieces))
            return
        async for body in http.stream(anthropic.events(pieces)):
            yield body
