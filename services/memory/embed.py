"""Vectors, from inference, with those of late kept at hand."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from datetime import timedelta
from typing import Final, Protocol

import grpc

from agentnet.inference.v1 import inference_service_pb2 as pb
from agentnet.inference.v1 import inference_service_pb2_grpc as rpc
from services.memory.errors import EmbeddingUnavailable
from services.memory.store import Embedding
from shared.clock import Clock
from shared.rpc.status import from_rpc

SERVICES: Final = ("agentnet.inference.v1.InferenceService",)
# Inference takes 256 texts a call; smaller batches spread over its replicas.
_BATCH: Final = 64


class Embedder(Protocol):
    """Turns texts into vectors of unit length, and their tokens too where the model can."""

    @property
    def model(self) -> str:
        """The model's name; empty until it is known."""

    async def embed(self, texts: Sequence[str]) -> list[Embedding]:
        """One a text, in order. Raises EmbeddingUnavailable."""


class MeshEmbedder:
    """inference, over the mesh, as the caller of this very call."""

    def __init__(self, channel: grpc.aio.Channel, *, model: str, tokens: bool = False) -> None:
        """`tokens`: whether their vectors are asked for."""
        self._stub = rpc.InferenceServiceStub(channel)
        self._asked = model
        self._tokens = tokens
        self._answered = ""

    @property
    def model(self) -> str:
        return self._asked or self._answered

    async def embed(self, texts: Sequence[str]) -> list[Embedding]:
        found: list[Embedding] = []
        for start in range(0, len(texts), _BATCH):
            found += await self._batch(texts[start : start + _BATCH])
        return found

    async def _batch(self, texts: Sequence[str]) -> list[Embedding]:
        asked = pb.EmbedRequest(model=self._asked, texts=texts, token_vectors=self._tokens)
        try:
            answer = await self._stub.Embed(asked)
        except grpc.aio.AioRpcError as error:
            reason = from_rpc(error).reason_name
            raise EmbeddingUnavailable("no embedding can be had now", dependency="inference", why=reason) from None
        self._answered = answer.model
        return [Embedding(tuple(one.values), one.token_vectors) for one in answer.embeddings]


class CachedEmbedder:
    """Remembers the vectors of the texts asked for last: at most `size`, none longer than `ttl`, the longest unasked
    going first. A vector tells nothing about who asked, so tenants share them.
    """

    def __init__(self, embedder: Embedder, clock: Clock, *, size: int, ttl: timedelta) -> None:
        self._embedder = embedder
        self._clock = clock
        self._size = size
        self._ttl = ttl
        self._kept: OrderedDict[str, tuple[timedelta, Embedding]] = OrderedDict()

    @property
    def model(self) -> str:
        return self._embedder.model

    async def embed(self, texts: Sequence[str]) -> list[Embedding]:
        now = self._clock.monotonic()
        known = {text: one for text in texts if (one := self._fresh(text, now))}
        missing = list(dict.fromkeys(text for text in texts if text not in known))
        if missing:
            known |= zip(missing, await self._embedder.embed(missing), strict=True)
        for text in texts:
            self._keep(text, known[text], now)
        return [known[text] for text in texts]

    def _fresh(self, text: str, now: timedelta) -> Embedding | None:
        kept = self._kept.get(text)
        return kept[1] if kept and now - kept[0] < self._ttl else None

    def _keep(self, text: str, embedding: Embedding, now: timedelta) -> None:
        made, _ = self._kept.pop(text, (now, embedding))
        self._kept[text] = (made if now - made < self._ttl else now, embedding)
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)
