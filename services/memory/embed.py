"""Vectors, from inference, with those of late kept at hand."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from datetime import timedelta
from typing import Final, Protocol

import grpc

from agentnet.inference.v1 import embedding_pb2
from agentnet.inference.v1 import inference_service_pb2 as pb
from agentnet.inference.v1 import inference_service_pb2_grpc as rpc
from services.memory.errors import EmbeddingUnavailable
from services.memory.store import Embedding
from shared.clock import Clock
from shared.rpc.status import from_rpc

SERVICES: Final = ("agentnet.inference.v1.InferenceService",)
# Inference takes 256 texts a call; smaller batches spread over its replicas.
_BATCH: Final = 64
_QUERY: Final = embedding_pb2.EMBEDDING_PURPOSE_QUERY
_PASSAGE: Final = embedding_pb2.EMBEDDING_PURPOSE_PASSAGE


class Embedder(Protocol):
    """Turns texts into vectors of unit length, and their tokens too where the model can."""

    @property
    def model(self) -> str:
        """The model's name; empty until it is known."""

    async def embed(self, texts: Sequence[str], *, query: bool = False) -> list[Embedding]:
        """One a text, in order; `query`: they are what is searched with. Raises EmbeddingUnavailable."""


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

    async def embed(self, texts: Sequence[str], *, query: bool = False) -> list[Embedding]:
        found: list[Embedding] = []
        for start in range(0, len(texts), _BATCH):
            found += await self._batch(texts[start : start + _BATCH], query=query)
        return found

    async def _batch(self, texts: Sequence[str], *, query: bool) -> list[Embedding]:
        purpose = _QUERY if query else _PASSAGE
        asked = pb.EmbedRequest(model=self._asked, texts=texts, token_vectors=self._tokens, purpose=purpose)
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
        self._kept: OrderedDict[tuple[bool, str], tuple[timedelta, Embedding]] = OrderedDict()

    @property
    def model(self) -> str:
        return self._embedder.model

    async def embed(self, texts: Sequence[str], *, query: bool = False) -> list[Embedding]:
        now = self._clock.monotonic()
        known = {text: one for text in texts if (one := self._fresh((query, text), now))}
        missing = list(dict.fromkeys(text for text in texts if text not in known))
        if missing:
            known |= zip(missing, await self._embedder.embed(missing, query=query), strict=True)
        for text in texts:
            self._keep((query, text), known[text], now)
        return [known[text] for text in texts]

    def _fresh(self, asked: tuple[bool, str], now: timedelta) -> Embedding | None:
        kept = self._kept.get(asked)
        return kept[1] if kept and now - kept[0] < self._ttl else None

    def _keep(self, asked: tuple[bool, str], embedding: Embedding, now: timedelta) -> None:
        made, _ = self._kept.pop(asked, (now, embedding))
        self._kept[asked] = (made if now - made < self._ttl else now, embedding)
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)
