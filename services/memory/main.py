"""The composition root of the memory service."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass

import grpc
from pgvector.asyncpg import register_vector

from agentnet.memory.v1 import (
    bulk_service_pb2_grpc,
    conversation_service_pb2_grpc,
    embedding_set_service_pb2_grpc,
    fact_service_pb2_grpc,
    memory_service_pb2_grpc,
)
from services.memory.bounds import Bounds, BoundsStore, Kind
from services.memory.bounds_postgres import PostgresBounds
from services.memory.consolidate import Consolidation
from services.memory.context import Contexts
from services.memory.conversation import Conversations
from services.memory.conversations_postgres import PostgresConversationStore
from services.memory.embed import SERVICES as PEERS
from services.memory.embed import CachedEmbedder, Embedder, MeshEmbedder
from services.memory.episodes import Episodes
from services.memory.fact_store import FactStore
from services.memory.fact_store_postgres import PostgresFactStore
from services.memory.facts import Facts
from services.memory.federation import Federation
from services.memory.forgetting import Forgetting
from services.memory.policy import Held, MemoryPolicy
from services.memory.recall import Recall
from services.memory.receipts import Receipts, ReceiptStore
from services.memory.receipts_postgres import PostgresReceipts
from services.memory.remember import Remembering
from services.memory.rerank import SecondLook, reranker_named
from services.memory.retention import Retention
from services.memory.service import MemoryService
from services.memory.service_bulk import BulkService
from services.memory.service_facts import ConversationService, FactService
from services.memory.service_sets import EmbeddingSetService
from services.memory.sets import EmbeddingSets
from services.memory.settings import MemorySettings
from services.memory.store import ConversationStore, MemoryStore
from services.memory.store_postgres import PostgresMemoryStore
from services.memory.upkeep import Limits, Upkeep
from services.memory.used import Used
from shared.clock import Clock, SystemClock
from shared.identity import Signer
from shared.ids import Ids, RandomIds
from shared.monitors.decisions import NAME as DECISIONS
from shared.monitors.decisions import reporting
from shared.monitors.enforced import NAME as POLICY
from shared.monitors.enforced import Enforced, published
from shared.postgres import open_database
from shared.risks import NAME as RISKS
from shared.risks import Tell, untold
from shared.risks import reporting as reporting_risks
from shared.rpc.channel import mesh_channel
from shared.rpc.server import run
from shared.tasks import supervised

SERVICES = (
    "agentnet.memory.v1.MemoryService",
    "agentnet.memory.v1.BulkService",
    "agentnet.memory.v1.FactService",
    "agentnet.memory.v1.ConversationService",
    "agentnet.memory.v1.EmbeddingSetService",
)


@dataclass(frozen=True, slots=True)
class Stores:
    """Everything the service keeps."""

    memories: MemoryStore
    conversations: ConversationStore
    facts: FactStore
    bounds: BoundsStore
    receipts: ReceiptStore


@dataclass(frozen=True, slots=True)
class Chores:
    """What the service does beside answering."""

    used: Used
    upkeep: Upkeep
    retention: Retention


def add_to_server(
    server: grpc.aio.Server,
    stores: Stores,
    *,
    embedder: Embedder,
    federation: Federation,
    policy: MemoryPolicy,
    settings: MemorySettings,
    clock: Clock,
    ids: Ids,
    tell: Tell = untold,
) -> Chores:
    """Puts the five services onto the server."""
    limits = Limits(stores.memories, clock, memories=settings.tenant_memories, tell=tell)
    used = Used(stores.memories, clock)
    upkeep = Upkeep(stores.memories, limits, clock, ids)
    remembering = Remembering(stores.memories, embedder, limits, policy=policy, clock=clock, ids=ids)
    recall = Recall(
        stores.memories, embedder, used, policy=policy, clock=clock, second_look=_second_look(settings)
    )  # fmt: skip
    conversations = Conversations(stores.conversations, policy=policy, clock=clock, ids=ids)
    facts = Facts(stores.facts, policy=policy, clock=clock, ids=ids)
    days = {
        Kind.CONVERSATION: settings.conversation_days, Kind.FACT: settings.fact_days,
        Kind.ENDED_FACT: settings.ended_fact_days,
    }  # fmt: skip
    bounds = {kind: Bounds(days=many) for kind, many in days.items()}
    retention = Retention(stores.bounds, conversations, facts, clock, bounds=bounds)
    contexts = Contexts(conversations, recall, remembering, facts, automatic=settings.automatic_context)
    episodes = Episodes(conversations, remembering, automatic=settings.automatic_episodes)
    consolidation = Consolidation(remembering)
    forgetting = Forgetting(remembering, consolidation)
    memories = MemoryService(remembering, recall, contexts, episodes, forgetting, federation=federation, clock=clock)
    receipts = Receipts(stores.receipts)
    bulk = BulkService(
        remembering, upkeep, retention, consolidation, conversations,
        forgetting=forgetting, receipts=receipts, clock=clock,
    )  # fmt: skip
    memory_service_pb2_grpc.add_MemoryServiceServicer_to_server(memories, server)
    bulk_service_pb2_grpc.add_BulkServiceServicer_to_server(bulk, server)
    fact_service_pb2_grpc.add_FactServiceServicer_to_server(FactService(facts, clock), server)
    conversation_service_pb2_grpc.add_ConversationServiceServicer_to_server(
        ConversationService(conversations, episodes), server
    )
    sets = EmbeddingSetService(EmbeddingSets(stores.memories, remembering, forgetting, embedder=embedder, clock=clock))
    embedding_set_service_pb2_grpc.add_EmbeddingSetServiceServicer_to_server(sets, server)
    return Chores(used, upkeep, retention)


def _second_look(settings: MemorySettings) -> SecondLook | None:
    if not settings.reranker:
        return None
    return SecondLook(reranker_named(settings.reranker), settings.reranked, settings.reranker_patience)


def main() -> None:
    settings = MemorySettings.load()

    async def register(server: grpc.aio.Server, stack: AsyncExitStack) -> None:
        dsn = settings.postgres_dsn.get_secret_value()
        database = await stack.enter_async_context(
            open_database(dsn, pool=settings.postgres_pool, prepare=register_vector, stateless=True)
        )
        channel = await stack.enter_async_context(
            mesh_channel(settings.mesh_address, services=(*PEERS, POLICY, DECISIONS, RISKS), tls=settings.tls_folder)
        )
        clock = SystemClock()
        if settings.identity_private_key is None:
            raise ValueError("memory needs AGENTNET_IDENTITY_PRIVATE_KEY")
        signer = Signer.from_file("memory", settings.identity_private_key, clock)
        enforced = Enforced(published(channel, signer, "memory"), Held.of)
        await stack.enter_async_context(supervised("policy", enforced.follow))
        decisions = await stack.enter_async_context(
            reporting(enforced.reported, channel, signer, "memory", clock=clock, ids=RandomIds())
        )
        risks = await stack.enter_async_context(reporting_risks(channel, signer, "memory", clock))
        embedder = CachedEmbedder(
            MeshEmbedder(channel, model=settings.embedding_model, tokens=settings.token_vectors),
            clock, size=settings.cached_embeddings, ttl=settings.cached_embeddings_ttl,
        )  # fmt: skip
        stores = Stores(
            PostgresMemoryStore(database), PostgresConversationStore(database), PostgresFactStore(database),
            PostgresBounds(database), PostgresReceipts(database),
        )  # fmt: skip
        patience = settings.cluster_patience
        federation = await Federation.of(settings.cluster_addresses, stack, patience=patience, tls=settings.tls_folder)
        chores = add_to_server(
            server,
            stores,
            embedder=embedder,
            federation=federation,
            policy=MemoryPolicy(enforced, strict=settings.strict, note=decisions.note),
            settings=settings,
            clock=clock,
            ids=RandomIds(),
            tell=risks.tell,
        )
        every = settings.upkeep_interval
        await stack.enter_async_context(supervised("used", lambda: chores.used.run(every / 10)))
        await stack.enter_async_context(supervised("upkeep", lambda: chores.upkeep.run(every)))
        await stack.enter_async_context(
            supervised("retention", lambda: chores.retention.run(stores.memories.tenants, every))
        )
        await stack.enter_async_context(supervised("index", lambda: chores.upkeep.run_tending(every / 100)))

    run("memory", settings, register, service_names=SERVICES)
