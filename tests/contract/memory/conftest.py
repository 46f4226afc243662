"""Every store of memories, conversations and facts, and tenants of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from pgvector.asyncpg import register_vector

from deploy.local.postgres import Cluster
from services.memory.conversations_memory import InMemoryConversations
from services.memory.conversations_postgres import PostgresConversationStore
from services.memory.fact_store_memory import InMemoryFacts
from services.memory.fact_store_postgres import PostgresFactStore
from services.memory.store_memory import InMemoryStore
from services.memory.store_postgres import PostgresMemoryStore
from shared.ids import RandomIds
from shared.postgres import Database, open_database


@pytest.fixture
async def database(postgres: Cluster) -> AsyncIterator[Database]:
    async with open_database(postgres.dsn("memory"), prepare=register_vector) as database:
        yield database


@pytest.fixture(params=["memory", "postgres"])
def store(request: pytest.FixtureRequest, database: Database) -> Any:
    return InMemoryStore() if request.param == "memory" else PostgresMemoryStore(database)


@pytest.fixture(params=["memory", "postgres"])
def conversations(request: pytest.FixtureRequest, database: Database) -> Any:
    return InMemoryConversations() if request.param == "memory" else PostgresConversationStore(database)


@pytest.fixture(params=["memory", "postgres"])
def facts(request: pytest.FixtureRequest, database: Database) -> Any:
    return InMemoryFacts() if request.param == "memory" else PostgresFactStore(database)


@pytest.fixture
def tenant() -> str:
    return RandomIds().new("t").lower().replace("_", "-")
