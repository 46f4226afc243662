"""Recall as the service does it, in this process and by gRPC, for the benches."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import grpc

from agentnet.memory.v1 import memory_service_pb2 as pb
from agentnet.memory.v1 import memory_service_pb2_grpc as rpc
from services.memory.bounds_memory import InMemoryBounds
from services.memory.conversations_memory import InMemoryConversations
from services.memory.fact_store_memory import InMemoryFacts
from services.memory.federation import Federation
from services.memory.main import SERVICES, Stores, add_to_server
from services.memory.policy import Held, MemoryPolicy
from services.memory.recall import Answer, Question, Recall
from services.memory.receipts_memory import InMemoryReceipts
from services.memory.settings import MemorySettings
from services.memory.store import Embedding, Filter, MemoryStore, Vector
from services.memory.used import Used
from shared.clock import FakeClock
from shared.ids import RandomIds
from shared.log import configure
from shared.rpc.channel import mesh_channel
from shared.rpc.server import serving
from tests.support.identity import make_keys
from tests.support.plain_embedder import MODEL, EmbeddedEmbedder
from tests.support.published import enforcing


class ModelHere:
    """The mesh's own model in a thread of this process, as memory knows one."""

    model = MODEL

    def __init__(self) -> None:
        self._plain = EmbeddedEmbedder()

    async def embed(self, texts: Sequence[str], *, query: bool = False) -> list[Embedding]:
        made = await self._plain.embed(texts)
        return [Embedding(*one) for one in zip(made.vectors, made.token_vectors, strict=True)]

    def close(self) -> None:
        self._plain.close()


@dataclass(frozen=True, slots=True)
class Recalling:
    """Asks one service, by its domain or by gRPC, in the time its memories are of. Embeddings are made anew each time."""

    domain: Recall
    stub: Any
    caller: tuple[tuple[str, str], ...]

    async def recall(self, tenant: str, question: str, *, limit: int, vector: Vector = ()) -> Answer:
        return await self.domain.recall(tenant, Question(question, Filter(), limit, vector=vector))

    async def call(self, question: str, *, limit: int) -> Any:
        """As the caller's tenant."""
        return await self.stub.Recall(pb.RecallRequest(query=question, limit=limit), metadata=self.caller)


@asynccontextmanager
async def recalling(store: MemoryStore, tenant: str, now: datetime) -> AsyncIterator[Recalling]:
    """A memory service of this store, without rules, its clock standing still, that tells no calls."""
    configure("bench", "WARNING")
    clock, embedder, receipts = FakeClock(now), ModelHere(), InMemoryReceipts()
    policy = MemoryPolicy(await enforcing(Held.of), strict=True)
    stores = Stores(
        store, InMemoryConversations(receipts), InMemoryFacts(receipts), InMemoryBounds(), receipts
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        keys = make_keys(Path(folder))
        given = {"listen": "127.0.0.1:0", "postgres_dsn": "postgres://nowhere", "identity_keys": keys.jwks}
        settings = MemorySettings.model_validate(given)

        async def register(server: grpc.aio.Server, stack: AsyncExitStack) -> None:
            federation = await Federation.of({}, stack, patience=settings.cluster_patience)
            add_to_server(
                server, stores, embedder=embedder, federation=federation, policy=policy, settings=settings, clock=clock,
                ids=RandomIds(),
            )  # fmt: skip

        async with (
            serving(settings, register, service_names=SERVICES) as address,
            mesh_channel(address, services=SERVICES) as channel,
        ):
            domain = Recall(store, embedder, Used(store, clock), policy=policy, clock=clock)
            yield Recalling(domain, rpc.MemoryServiceStub(channel), keys.metadata(tenant))
    embedder.close()
