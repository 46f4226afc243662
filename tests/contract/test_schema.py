"""What holds for every table of the mesh."""

from __future__ import annotations

import asyncpg
import pytest

from deploy.local.postgres import Cluster
from shared.errors import InvalidArgument
from shared.migrate import Migration, MigrationChanged, migrate, migrations
from shared.postgres import open_database

SEED_TABLES = {
    "orchestrator.agent": "id name version style config monitors created_at archived",
    "orchestrator.session": "id topic_start topic_final mode strategy converged rounds_executed participants metadata "
    "started_at ended_at",
    "orchestrator.turn": "id session_id round agent_name prompt content confidence raw created_at",
    "policy.violation": "id session_id turn_id monitor_name severity violation_type rationale meta created_at",
    "orchestrator.task_graph": "id session_id graph_json status created_at",
    "cost.cost_event": "id session_id agent_name provider model tokens_input tokens_output cost_usd created_at",
    "memory.memory_episode": "id agent_name embedding content metadata created_at",
}

# What the seeds keep of governance, enforcement, checkpoints, events, bundles, prompts and evaluations.
KEPT = {
    "tools": "tool tool_state tool_audit tool_usage tool_invocation",
    "policy": "enforcement_rule enforcement_action enforced_state tool_permission bundle bundle_label audit_entry",
    "orchestrator": "checkpoint event evaluation evaluation_case",
    "inference": "prompt_version prompt_label",
    "gateway": "event delivery",
}
# Read by the driver for all tenants, in the order of its key, and emptied as it is read.
QUEUES = {"orchestrator.happening"}


@pytest.mark.parametrize("table", SEED_TABLES)
async def test_the_seeds_table_exists_with_its_columns(postgres: Cluster, table: str) -> None:
    schema, _, name = table.partition(".")
    connection = await asyncpg.connect(postgres.dsn("owner"))
    try:
        rows = await connection.fetch(
            "select column_name, data_type, numeric_precision, numeric_scale from information_schema.columns "
            "where table_schema = $1 and table_name = $2", schema, name,
        )  # fmt: skip
    finally:
        await connection.close()
    columns = {row["column_name"]: row for row in rows}
    assert set(SEED_TABLES[table].split()) <= set(columns)
    assert "tenant_id" in columns
    if name == "cost_event":
        assert (columns["cost_usd"]["numeric_precision"], columns["cost_usd"]["numeric_scale"]) == (12, 6)


async def test_the_seeds_index_and_uniqueness_hold(postgres: Cluster) -> None:
    connection = await asyncpg.connect(postgres.dsn("owner"))
    try:
        found = await connection.fetch("select indexname, indexdef from pg_indexes where schemaname = 'orchestrator'")
    finally:
        await connection.close()
    indexes = {row["indexname"]: row["indexdef"] for row in found}
    assert indexes["turn_session_round_idx"].endswith("(tenant_id, session_id, round)")
    assert any(text.endswith("(tenant_id, name, version)") and "UNIQUE" in text for text in indexes.values())


async def test_governance_enforcement_events_and_evaluations_have_tables(postgres: Cluster) -> None:
    connection = await asyncpg.connect(postgres.dsn("owner"))
    try:
        rows = await connection.fetch("select schemaname || '.' || tablename as name from pg_tables")
    finally:
        await connection.close()
    wanted = {f"{schema}.{table}" for schema, tables in KEPT.items() for table in tables.split()}
    assert not wanted - {row["name"] for row in rows}


async def test_every_table_of_a_tenant_is_found_by_an_index_and_not_by_reading_it_whole(postgres: Cluster) -> None:
    connection = await asyncpg.connect(postgres.dsn("owner"))
    try:
        bare = await connection.fetch(
            "select c.oid::regclass::text as name from pg_class c join pg_namespace n on n.oid = c.relnamespace "
            "join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id' "
            "where c.relkind = 'r' and n.nspname = any($1) and not exists (select from pg_index i "
            "where i.indrelid = c.oid and (i.indkey[0] = a.attnum or i.indpred is not null "
            # or by the key of what it belongs to, which is the tenant's
            "or a.attnum = any(i.indkey) and exists (select from pg_constraint f where f.conrelid = c.oid "
            "and f.contype = 'f' and f.conkey @> array[a.attnum, i.indkey[0]])))",
            ["gateway", "orchestrator", "inference", "tools", "policy", "memory", "cost"],
        )
    finally:
        await connection.close()
    assert {row["name"] for row in bare} == QUEUES


async def test_every_table_forces_row_level_security_by_tenant(postgres: Cluster) -> None:
    connection = await asyncpg.connect(postgres.dsn("owner"))
    try:
        tables = await connection.fetch(
            "select c.oid::regclass::text as name, c.relrowsecurity, c.relforcerowsecurity from pg_class c "
            "join pg_namespace n on n.oid = c.relnamespace "
            "where c.relkind = 'r' and n.nspname = any($1)",
            ["gateway", "orchestrator", "inference", "tools", "policy", "memory", "cost"],
        )
        bypassing = await connection.fetchval(
            "select count(*) from pg_roles where rolname like 'agentnet%' and (rolbypassrls or rolsuper)"
        )
    finally:
        await connection.close()
    assert len(tables) >= 17
    assert [row["name"] for row in tables if not (row["relrowsecurity"] and row["relforcerowsecurity"])] == []
    assert bypassing == 0


async def test_a_service_cannot_read_anothers_schema(postgres: Cluster) -> None:
    connection = await asyncpg.connect(postgres.dsn("memory"))
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch("select * from cost.cost_event")
    finally:
        await connection.close()


async def test_the_driver_sees_leases_and_no_content(postgres: Cluster) -> None:
    connection = await asyncpg.connect(postgres.dsn("orchestrator_driver"))
    try:
        await connection.fetch("select * from session_lease")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch("select * from event")
    finally:
        await connection.close()


async def test_migrations_are_applied_once_and_never_change(postgres: Cluster) -> None:
    assert await migrate(postgres.dsn("owner"), migrations()) == []
    first = migrations()[0]
    with pytest.raises(MigrationChanged):
        await migrate(postgres.dsn("owner"), [Migration(first.schema, first.name, first.sql + "\n-- changed")])


async def test_a_text_that_postgres_cannot_keep_is_the_callers_fault(postgres: Cluster) -> None:
    async with open_database(postgres.dsn("gateway")) as database:
        for kind, value in (("text", "a\x00b"), ("jsonb", {"a": "\x00"})):
            with pytest.raises(InvalidArgument):
                await database.statement(f"select $1::{kind} as kept", value)
            with pytest.raises(InvalidArgument):
                async with database.tenant("acme") as connection:
                    await connection.fetch(f"select $1::{kind} as kept", value)
