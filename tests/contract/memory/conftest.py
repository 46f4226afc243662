"""Every store of memories, conversations and facts, and tenants of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from pgvector.asyncpg import register_vector

from deploy.local.postgres import Cluster
from services.memory.backends.contract import EngineStore
from services.memory.backends.pinecone_engine import PineconeEngine
from services.memory.backends.weaviate_engine import WeaviateEngine
from services.memory.conversations_memory import InMemoryConversations
from services.memory.conversations_postgres import PostgresConversationStore
from services.memory.fact_store_memory import InMemoryFacts
from services.memory.fact_store_postgres import PostgresFactStore
from services.memory.receipts_postgres import PostgresReceipts
from services.memory.store_memory import InMemoryStore
from services.memory.store_postgres import PostgresMemoryStore
from shared.ids import RandomIds
from shared.postgres import Database, open_database
from tests.support.memory_engines import ENGINES, installed
from tests.support.vector_servers import KEY, Pinecone, Weaviate, served


@pytest.fixture
async def database(postgres: Cluster) -> AsyncIterator[Database]:
    async with open_database(postgres.dsn("memory"), prepare=register_vector) as database:
        yield database


@pytest.fixture
async def pinecone() -> AsyncIterator[PineconeEngine]:
    async with AsyncExitStack() as stack:
        hosts = {width: await stack.enter_async_context(served(Pinecone().routes())) for width in (384, 768, 1536)}
        with closing(PineconeEngine(hosts, api_key=KEY)) as engine:
            yield engine


@pytest.fixture
async def weaviate() -> AsyncIterator[WeaviateEngine]:
    async with served(Weaviate().routes()) as address:
        with closing(WeaviateEngine(address)) as engine:
            yield engine


# These are services; what answers here is a local server of their wire format.
SERVED = ("pinecone", "weaviate")


@pytest.fixture(params=["memory", "postgres", *ENGINES, *SERVED])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "memory":
        return InMemoryStore()
    if request.param == "postgres":
        return PostgresMemoryStore(request.getfixturevalue("database"))
    if request.param in SERVED:
        return EngineStore(request.getfixturevalue(request.param))
    if not installed(request.param):
        pytest.skip(f"{request.param} is not installed: make test-backends")
    return EngineStore(ENGINES[request.param][1](tmp_path))


@pytest.fixture(params=["memory", "postgres"])
def conversations(request: pytest.FixtureRequest, database: Database) -> Any:
    return InMemoryConversations() if request.param == "memory" else PostgresConversationStore(database)


@pytest.fixture(params=["memory", "postgres"])
def facts(request: pytest.FixtureRequest, database: Database) -> Any:
    return InMemoryFacts() if request.param == "memory" else PostgresFactStore(database)


@pytest.fixture
def receipts(store: Any, request: pytest.FixtureRequest) -> Any:
    """Of what the store has deleted."""
    if isinstance(store, PostgresMemoryStore):
        return PostgresReceipts(request.getfixturevalue("database"))
    return store.receipts


@pytest.fixture
def tenant() -> str:
    return RandomIds().new("t").lower().replace("_", "-")
