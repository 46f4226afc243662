"""Vectors, from inference."""

from __future__ import annotations

from typing import Final, Protocol

import grpc

from agentnet.inference.v1 import inference_service_pb2 as pb
from agentnet.inference.v1 import inference_service_pb2_grpc as rpc
from services.memory.errors import EmbeddingUnavailable
from services.memory.store import Vector
from shared.rpc.status import from_rpc

SERVICES: Final = ("agentnet.inference.v1.InferenceService",)


class Embedder(Protocol):
    """Turns text into vectors of unit length."""

    async def embed(self, text: str) -> Vector:
        """Raises EmbeddingUnavailable."""


class MeshEmbedder:
    """inference, over the mesh, as the caller of this very call."""

    def __init__(self, channel: grpc.aio.Channel, *, model: str) -> None:
        self._stub = rpc.InferenceServiceStub(channel)
        self._model = model

    async def embed(self, text: str) -> Vector:
        try:
            answer = await self._stub.Embed(pb.EmbedRequest(model=self._model, texts=[text]))
        except grpc.aio.AioRpcError as error:
            reason = from_rpc(error).reason_name
            raise EmbeddingUnavailable("no embedding can be had now", dependency="inference", why=reason) from None
        return tuple(answer.embeddings[0].values)
