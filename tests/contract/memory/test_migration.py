"""What was stored before a migration is there after it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import asyncpg
from pgvector.asyncpg import register_vector

from deploy.local.postgres import Cluster
from services.memory.store import Filter, Probe
from services.memory.store_postgres import PostgresMemoryStore
from shared.migrate import migrate, migrations
from shared.postgres import load_queries, open_database
from tests.support.memory import NOW, vector

BOOTSTRAP = Path(__file__).resolve().parents[3] / "deploy" / "postgres" / "bootstrap.sql"
OLD = """
insert into memory_episode_384 (tenant_id, id, agent_name, embedding, content, content_hash, memory_type, session_id, turn_id,
  tags, metadata, importance, created_at)
values ($1, $2, 'Athena', $3, $4, $5, 'episodic', 's', '', '{old}', '{}', 0.5, $6)
"""
SAID = """
insert into short_term_turn (tenant_id, session_id, turn_id, agent_name, content, created_at) values ($1, 's', 't', 'Athena', 'Hi', now())
"""


async def test_what_was_stored_before_the_partitions_is_found_after(postgres: Cluster) -> None:
    await _database(postgres, "before_partitions")
    mine = [one for one in migrations() if one.schema == "memory"]
    owner = postgres.dsn("owner", database="before_partitions")
    await migrate(owner, mine[:1])
    await _store_as_before(postgres)
    await migrate(owner, mine)
    async with open_database(postgres.dsn("memory", database="before_partitions"), prepare=register_vector) as database:
        store = PostgresMemoryStore(database)
        found = await store.gather("a", Probe(vector(1), ("run",), 5, 1), Filter(), now=NOW + timedelta(days=1))
        (usage,) = await store.usage("b")
        assert [one.memory.content for one in found.pool] == ["The dogs were running", "Something else"]
        assert found.corpus.holding == {"run": 1}
        tagged = await store.nearest("a", vector(1), Filter(tags=("old",)), now=NOW + timedelta(days=1), limit=5)
        assert [one.memory.content for one in tagged] == ["The dogs were running", "Something else"]
        assert usage.memories == 1
        gone = found.pool[0].memory
        assert set(await store.forget("a", [gone], [])) == {"1"}
        async with database.tenant("a") as connection:
            assert await connection.fetchval("select count(*) from memory_word where place = $1", gone.place) == 0


async def _store_as_before(postgres: Cluster) -> None:
    connection = await asyncpg.connect(postgres.dsn("memory", database="before_partitions"))
    await register_vector(connection)
    await connection.set_type_codec("jsonb", encoder=str, decoder=str, schema="pg_catalog")
    rows = [
        ("a", "1", (1, 0), "The dogs were running"),
        ("a", "2", (0, 1), "Something else"),
        ("b", "3", (1, 0), "Theirs"),
    ]
    for tenant, name, direction, content in rows:
        async with connection.transaction():
            await connection.execute("select set_config('app.tenant', $1, true)", tenant)
            await connection.execute(OLD, tenant, name, list(vector(*direction)), content, content.encode(), NOW)
    await connection.close()


async def test_tenants_with_conversations_and_facts_alone_are_named_by_the_migration(postgres: Cluster) -> None:
    await _database(postgres, "before_retention")
    owner = postgres.dsn("owner", database="before_retention")
    mine = [one for one in migrations() if one.schema == "memory"]
    await migrate(owner, [one for one in mine if one.name < "0009"])
    async with open_database(postgres.dsn("memory", database="before_retention")) as database:
        async with database.tenant("talks") as talk:
            await talk.execute(SAID, "talks")
    await migrate(owner, mine)
    async with open_database(postgres.dsn("memory", database="before_retention")) as database:
        async with database.tenant("anyone") as connection:
            assert await connection.fetchval("select array_agg(name) from memory_tenants() as name") == ["talks"]


async def _database(postgres: Cluster, name: str) -> None:
    """One of its own, with roles and schemas and no table."""
    admin = await asyncpg.connect(postgres.dsn("postgres"))
    await admin.execute(f"create database {name} owner agentnet_owner encoding 'UTF8' template template0")
    await admin.close()
    setup = await asyncpg.connect(postgres.dsn("postgres", database=name))
    await setup.execute(load_queries(BOOTSTRAP)["schemas"])
    await setup.close()
