"""What the engine may rely on, whichever store it has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg
import pytest

from services.inference.providers.contract import Usage
from services.inference.store import GenerationRecord, GenerationStore
from services.inference.store_memory import MemoryGenerationStore
from services.inference.store_postgres import PostgresGenerationStore
from shared.postgres import open_database

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
RECORD = GenerationRecord(
    id="trn_1-1",
    session_id="ses_1",
    agent="Athena@1.0.0",
    provider="openai",
    model="gpt-4o-mini",
    outcome="STOP",
    usage=Usage(1200, 340, cached_input_tokens=1024, reasoning_tokens=99, estimated=True),
    started_at=NOON,
    ended_at=NOON + timedelta(milliseconds=1234, microseconds=5),
)


@pytest.fixture(params=["memory", "postgres"])
def dsn(request: pytest.FixtureRequest) -> str | None:
    return request.getfixturevalue("postgres").dsn("inference") if request.param == "postgres" else None


@pytest.fixture
async def store(dsn: str | None) -> AsyncIterator[GenerationStore]:
    if dsn is None:
        yield MemoryGenerationStore()
        return
    async with open_database(dsn, pool=2) as database:
        yield PostgresGenerationStore(database)


@pytest.fixture
def tenant() -> str:
    return f"tenant-{uuid4()}"


async def test_a_record_comes_back_as_it_was_written(store: GenerationStore, tenant: str) -> None:
    await store.finish(tenant, RECORD)
    assert await store.find(tenant, RECORD.id) == RECORD


async def test_a_generation_that_did_not_end_is_not_found(store: GenerationStore, tenant: str) -> None:
    assert await store.find(tenant, "trn_1-1") is None


async def test_the_first_record_of_a_generation_stays(store: GenerationStore, tenant: str) -> None:
    await store.finish(tenant, RECORD)
    await store.finish(tenant, replace(RECORD, outcome="GENERATION_CANCELLED", usage=Usage(1, 1)))
    assert await store.find(tenant, RECORD.id) == RECORD


async def test_a_tenant_sees_only_its_own_records(store: GenerationStore, tenant: str) -> None:
    await store.finish(tenant, RECORD)
    assert await store.find(f"{tenant}-other", RECORD.id) is None


async def test_two_tenants_may_use_the_same_id(store: GenerationStore, tenant: str) -> None:
    theirs = replace(RECORD, outcome="LENGTH")
    await store.finish(tenant, RECORD)
    await store.finish(f"{tenant}-other", theirs)
    assert await store.find(tenant, RECORD.id) == RECORD
    assert await store.find(f"{tenant}-other", RECORD.id) == theirs


@pytest.fixture
def address(request: pytest.FixtureRequest) -> str:
    dsn: str = request.getfixturevalue("postgres").dsn("inference")
    return dsn


async def test_a_row_for_another_tenant_is_refused_by_the_database(address: str, tenant: str) -> None:
    async with open_database(address, pool=1) as database:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
            async with database.tenant(tenant) as connection:
                await connection.execute(
                    "insert into generation (tenant_id, id, session_id, agent_name, provider, model, outcome,"
                    " tokens_input, tokens_output, estimated, started_at, ended_at)"
                    " values ('someone-else', 'x', '', '', 'p', 'm', 'STOP', 1, 1, false, now(), now())"
                )


async def test_without_a_tenant_there_is_nothing_to_see(address: str, tenant: str) -> None:
    async with open_database(address, pool=1) as database:
        await PostgresGenerationStore(database).finish(tenant, RECORD)
        async with database.transaction() as connection:
            assert await connection.fetchval("select count(*) from generation") == 0
