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
from services.memory.store_memory import InMemoryStore
from services.memory.store_postgres import PostgresMemoryStore
from shared.ids import RandomIds
from shared.postgres import Database, open_database
from tests.support.vector_servers import KEY, Pinecone, Weaviate, served


@pytest.fixture
async def database(postgres: Cluster) -> AsyncIterator[Database]:
    async with open_database(postgres.dsn("memory"), prepare=register_vector) as database:
        yield database


def _faiss(folder: Path) -> Any:
    pytest.importorskip("faiss")
    from services.memory.backends.faiss_engine import FaissEngine

    return FaissEngine()


def _qdrant(folder: Path) -> Any:
    client = pytest.importorskip("qdrant_client")
    from services.memory.backends.qdrant_engine import QdrantEngine

    return QdrantEngine(client.QdrantClient(":memory:"))


def _chroma(folder: Path) -> Any:
    chroma = pytest.importorskip("chromadb")
    from services.memory.backends.chroma_engine import ChromaEngine

    return ChromaEngine(chroma.EphemeralClient(chroma.Settings(anonymized_telemetry=False)))


def _lance(folder: Path) -> Any:
    pytest.importorskip("lancedb")
    from services.memory.backends.lance_engine import LanceEngine

    return LanceEngine(folder)


def _milvus(folder: Path) -> Any:
    client = pytest.importorskip("pymilvus")
    pytest.importorskip("milvus_lite")
    from services.memory.backends.milvus_engine import MilvusEngine

    return MilvusEngine(client.MilvusClient(str(folder / "vectors.db")))


# Engines are an optional group of dependencies, `backends`; a run without one of them skips it: `make test-backends` has all.
ENGINES = {"faiss": _faiss, "qdrant": _qdrant, "chroma": _chroma, "lancedb": _lance, "milvus": _milvus}


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
    return EngineStore(ENGINES[request.param](tmp_path))


@pytest.fixture(params=["memory", "postgres"])
def conversations(request: pytest.FixtureRequest, database: Database) -> Any:
    return InMemoryConversations() if request.param == "memory" else PostgresConversationStore(database)


@pytest.fixture(params=["memory", "postgres"])
def facts(request: pytest.FixtureRequest, database: Database) -> Any:
    return InMemoryFacts() if request.param == "memory" else PostgresFactStore(database)


@pytest.fixture
def tenant() -> str:
    return RandomIds().new("t").lower().replace("_", "-")
