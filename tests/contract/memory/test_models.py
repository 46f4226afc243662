"""Memory with whatever embedding model inference is asked for by name, over its contract: storing, finding, changing the model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from agentnet.inference.v1 import inference_service_pb2 as pb
from agentnet.inference.v1 import inference_service_pb2_grpc as rpc
from services.memory.embed import MeshEmbedder
from services.memory.policy import Held, MemoryPolicy
from services.memory.recall import Question, Recall
from services.memory.remember import NewMemory, Remembering
from services.memory.store import Filter, MemoryType
from services.memory.upkeep import Limits
from services.memory.used import Used
from shared.clock import FakeClock
from shared.ids import RandomIds
from tests.support.memory import HashingEmbedder
from tests.support.published import enforcing

# The embedded model, the default model of a mesh that names none, and those of OpenAI's wire format.
MODELS = {"minilm-l6-v2": 384, "nomic-embed-text": 768, "text-embedding-3-small": 1536, "text-embedding-3-large": 3072}


class Inference(rpc.InferenceServiceServicer):
    """Models by name, each as wide as the real one; the same text means another direction in each."""

    async def Embed(self, request: pb.EmbedRequest, context: Any) -> pb.EmbedResponse:
        model = request.model or "minilm-l6-v2"
        if model not in MODELS:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no embedding model {model}")
        vectors = await HashingEmbedder(width=MODELS[model]).embed(list(request.texts))
        turned = [one.vector[::-1] if "large" in model else one.vector for one in vectors]
        return pb.EmbedResponse(embeddings=[pb.Embedding(values=one) for one in turned], model=model)


@asynccontextmanager
async def inference() -> AsyncIterator[grpc.aio.Channel]:
    server = grpc.aio.server()
    rpc.add_InferenceServiceServicer_to_server(Inference(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(None)


async def _memory(store: Any, channel: grpc.aio.Channel, model: str) -> tuple[Remembering, Recall]:
    clock, embedder = FakeClock(), MeshEmbedder(channel, model=model)
    policy, limits = MemoryPolicy(await enforcing(Held.of), strict=True), Limits(store, clock, memories=100)
    remembering = Remembering(store, embedder, limits, policy=policy, clock=clock, ids=RandomIds())
    return remembering, Recall(store, embedder, Used(store, clock), policy=policy, clock=clock)


async def _dense(recall: Recall, tenant: str, query: str) -> list[str]:
    asked = Question(query, Filter(), 5, by_words=False, min_score=0.3)
    return [one.memory.content for one in (await recall.recall(tenant, asked)).matches]


@pytest.mark.parametrize("store", ["memory", "postgres"], indirect=True)
@pytest.mark.parametrize("first", ["", *MODELS])
@pytest.mark.parametrize("second", ["minilm-l6-v2", "text-embedding-3-large"])
async def test_any_model_stores_and_finds_and_another_takes_over(
    store: Any, tenant: str, first: str, second: str
) -> None:
    async with inference() as channel:
        remembering, recall = await _memory(store, channel, first)
        ((kept, _),) = await remembering.remember_many(tenant, [NewMemory("the harbour at night", MemoryType.SEMANTIC)])
        assert kept.embedding_model == (first or "minilm-l6-v2")
        assert await _dense(recall, tenant, "harbour night") == ["the harbour at night"]

        remembering, recall = await _memory(store, channel, second)
        same = kept.embedding_model == second
        assert await _dense(recall, tenant, "harbour night") == (["the harbour at night"] if same else [])
        assert await remembering.reembed(tenant, limit=10) == (0 if same else 1, 0)
        assert await _dense(recall, tenant, "harbour night") == ["the harbour at night"]
        assert len(await store.vector(tenant, kept.id)) == MODELS[second]
