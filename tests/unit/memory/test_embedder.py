"""The embedder over the mesh: batches, the model's name, and what a refusal becomes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import grpc
import pytest

from agentnet.inference.v1 import embedding_pb2
from agentnet.inference.v1 import inference_service_pb2 as pb
from agentnet.inference.v1 import inference_service_pb2_grpc as rpc
from services.memory.embed import CachedEmbedder, MeshEmbedder
from services.memory.errors import EmbeddingUnavailable
from shared.clock import SystemClock


class Inference(rpc.InferenceServiceServicer):
    """Gives the length of a text as its vector; `away` refuses."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.purposes: list[int] = []
        self.away = False

    async def Embed(self, request: pb.EmbedRequest, context: Any) -> pb.EmbedResponse:
        if self.away:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        self.asked.append((request.model, len(request.texts)))
        self.purposes.append(request.purpose)
        tokens = b"t" * 64 if request.token_vectors else b""
        vectors = [pb.Embedding(values=[float(len(text))], token_vectors=tokens) for text in request.texts]
        return pb.EmbedResponse(embeddings=vectors, model="minilm")


async def test_texts_go_in_batches_and_the_answer_names_the_model() -> None:
    inference, server = Inference(), grpc.aio.server()
    rpc.add_InferenceServiceServicer_to_server(inference, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            embedder = MeshEmbedder(channel, model="")
            assert embedder.model == ""
            found = await embedder.embed(["x" * n for n in range(130)])
            assert found[:3] == [((0.0,), b""), ((1.0,), b""), ((2.0,), b"")]
            reading = MeshEmbedder(channel, model="", tokens=True)
            assert await reading.embed(["x"]) == [((1.0,), b"t" * 64)]
            assert inference.asked == [("", 64), ("", 64), ("", 2), ("", 1)]
            assert set(inference.purposes) == {embedding_pb2.EMBEDDING_PURPOSE_PASSAGE}
            inference.purposes.clear()
            cached = CachedEmbedder(embedder, SystemClock(), size=9, ttl=timedelta(minutes=1))
            for _ in range(2):
                await cached.embed(["x"], query=True)
                await cached.embed(["x"])
            assert inference.purposes == [
                embedding_pb2.EMBEDDING_PURPOSE_QUERY, embedding_pb2.EMBEDDING_PURPOSE_PASSAGE
            ]  # fmt: skip
            assert embedder.model == "minilm"
            assert MeshEmbedder(channel, model="asked").model == "asked"
            inference.away = True
            with pytest.raises(EmbeddingUnavailable):
                await embedder.embed(["x"])
    finally:
        await server.stop(None)
