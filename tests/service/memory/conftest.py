"""The served memory service with stores in memory, a clock that stands still and an embedder without a model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from agentnet.memory.v1 import (
    bulk_service_pb2_grpc,
    conversation_service_pb2_grpc,
    embedding_set_service_pb2_grpc,
    fact_service_pb2_grpc,
    memory_service_pb2_grpc,
)
from services.memory.bounds_memory import InMemoryBounds
from services.memory.conversations_memory import InMemoryConversations
from services.memory.fact_store_memory import InMemoryFacts
from services.memory.federation import Federation
from services.memory.main import SERVICES, Chores, Stores, add_to_server
from services.memory.policy import Held, MemoryPolicy
from services.memory.receipts_memory import InMemoryReceipts
from services.memory.settings import MemorySettings
from services.memory.store_memory import InMemoryStore
from shared.clock import FakeClock
from shared.ids import SequentialIds
from shared.monitors.decisions import Decided
from shared.monitors.enforced import Enforced
from shared.risks import Tell, untold
from shared.rpc.channel import mesh_channel
from shared.rpc.server import serving
from tests.support.identity import Keys, make_keys
from tests.support.memory import HashingEmbedder
from tests.support.published import enforcing


@dataclass
class Served:
    """Stubs of the five services, and what stands behind them."""

    memories: Any
    bulk: Any
    facts: Any
    conversations: Any
    sets: Any
    embedder: HashingEmbedder
    clock: FakeClock
    keys: Keys
    chores: list[Chores]
    address: str
    decided: list[Decided]
    stores: Stores

    def caller(self, tenant: str = "acme") -> tuple[tuple[str, str], ...]:
        return self.keys.metadata(tenant)


@pytest.fixture
def settings() -> dict[str, Any]:
    return {}


@pytest.fixture
async def served(tmp_path: Path, settings: dict[str, Any]) -> AsyncIterator[Served]:
    async with serve(make_keys(tmp_path), settings) as served:
        yield served


@asynccontextmanager
async def serve(
    keys: Keys,
    settings: dict[str, Any],
    *rules: dict[str, Any],
    enforced: Enforced[Held] | None = None,
    tell: Tell = untold,
) -> AsyncIterator[Served]:
    """A memory service that trusts these keys and enforces these rules."""
    enforced = enforced or await enforcing(Held.of, *rules)
    given = {
        "listen": "127.0.0.1:0",
        "postgres_dsn": "postgres://nowhere",
        "identity_keys": keys.jwks,
        "drain_grace": 1,
    }
    configured = MemorySettings.model_validate(given | settings)
    embedder, clock, chores = HashingEmbedder(), FakeClock(), []
    decided: list[Decided] = []
    receipts = InMemoryReceipts()
    stores = Stores(
        InMemoryStore(receipts), InMemoryConversations(receipts), InMemoryFacts(receipts), InMemoryBounds(), receipts
    )

    async def register(server: grpc.aio.Server, stack: AsyncExitStack) -> None:
        patience = configured.cluster_patience
        chores.append(
            add_to_server(
                server,
                stores,
                embedder=embedder,
                policy=MemoryPolicy(enforced, strict=True, note=lambda _, one: decided.append(one)),
                federation=await Federation.of(configured.cluster_addresses, stack, patience=patience),
                settings=configured,
                clock=clock,
                ids=SequentialIds(),
                tell=tell,
            )
        )

    async with (
        serving(configured, register, service_names=SERVICES) as address,
        mesh_channel(address, services=SERVICES) as channel,
    ):
        yield Served(
            memory_service_pb2_grpc.MemoryServiceStub(channel),
            bulk_service_pb2_grpc.BulkServiceStub(channel),
            fact_service_pb2_grpc.FactServiceStub(channel),
            conversation_service_pb2_grpc.ConversationServiceStub(channel),
            embedding_set_service_pb2_grpc.EmbeddingSetServiceStub(channel),
            embedder, clock, keys, chores, address, decided, stores,
        )  # fmt: skip
