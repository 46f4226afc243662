"""The composition root of the memory service."""

from __future__ import annotations

from contextlib import AsyncExitStack

import grpc
from pgvector.asyncpg import register_vector

from agentnet.memory.v1 import memory_service_pb2_grpc as rpc
from services.memory.embed import SERVICES as PEERS
from services.memory.embed import MeshEmbedder
from services.memory.recall import Recall
from services.memory.service import MemoryService
from services.memory.settings import MemorySettings
from services.memory.store_postgres import PostgresMemoryStore
from shared.clock import SystemClock
from shared.ids import RandomIds
from shared.postgres import open_database
from shared.rpc.channel import mesh_channel
from shared.rpc.server import run

SERVICES = ("agentnet.memory.v1.MemoryService",)


def main() -> None:
    settings = MemorySettings.load()

    async def register(server: grpc.aio.Server, stack: AsyncExitStack) -> None:
        dsn = settings.postgres_dsn.get_secret_value()
        database = await stack.enter_async_context(
            open_database(dsn, pool=settings.postgres_pool, prepare=register_vector)
        )
        channel = await stack.enter_async_context(mesh_channel(settings.mesh_address, services=PEERS))
        embedder = MeshEmbedder(channel, model=settings.embedding_model)
        recall = Recall(PostgresMemoryStore(database), embedder, clock=SystemClock(), ids=RandomIds())
        rpc.add_MemoryServiceServicer_to_server(MemoryService(recall), server)

    run("memory", settings, register, service_names=SERVICES)
