"""What the registry may rely on, whichever store it has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg
import pytest

from services.tools.store import Function, Invocation, Tool, ToolStore
from services.tools.store_memory import MemoryToolStore
from services.tools.store_postgres import PostgresToolStore
from shared.postgres import open_database

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
FUNCTION = Function(
    code="def adder(a, b):\n    return a + b\n",
    entry_point="adder",
    memory_limit_mib=128,
    timeout=timedelta(milliseconds=1500),
    allowed_imports=("json", "math"),
    code_hash="ab" * 32,
)
ADDER = Tool(
    name="adder",
    version="1.0.0",
    description="Adds — größer.",
    input_schema={"type": "object", "properties": {"a": {"type": "integer"}}},
    output_schema={"type": "integer"},
    rate_limit_per_min=30,
    exec_mode="python",
    auth={"type": "api_key_ref", "key_id": "serpapi_key"},
    allowed_agents=("Athena", "*"),
    function=FUNCTION,
    idempotent=True,
    created_at=NOON,
)
CALL = Invocation(
    id="inv_1",
    tool="adder@1.0.0",
    agent="Athena",
    subject="ada",
    session_id="ses_1",
    turn_id="trn_1",
    arguments_digest=b"\x00\xff",
    status="OK",
    isolation="bubblewrap+seccomp+rlimits",
    elapsed=timedelta(milliseconds=41),
    created_at=NOON,
)


@pytest.fixture(params=["memory", "postgres"])
def dsn(request: pytest.FixtureRequest) -> str | None:
    return request.getfixturevalue("postgres").dsn("tools") if request.param == "postgres" else None


@pytest.fixture
async def store(dsn: str | None) -> AsyncIterator[ToolStore]:
    if dsn is None:
        yield MemoryToolStore()
        return
    async with open_database(dsn, pool=2) as database:
        yield PostgresToolStore(database)


@pytest.fixture
def tenant() -> str:
    return f"tenant-{uuid4()}"


async def test_a_tool_comes_back_as_it_was_added(store: ToolStore, tenant: str) -> None:
    assert await store.add(tenant, ADDER)
    assert list(await store.versions(tenant, "adder")) == [ADDER]


async def test_a_tool_without_function_auth_and_output_comes_back_as_it_was_added(
    store: ToolStore, tenant: str
) -> None:
    remote = replace(ADDER, exec_mode="external_api", function=None, auth=None, output_schema=None, allowed_agents=())
    assert await store.add(tenant, remote)
    assert list(await store.versions(tenant, "adder")) == [remote]


async def test_a_version_is_never_changed(store: ToolStore, tenant: str) -> None:
    await store.add(tenant, ADDER)
    assert not await store.add(tenant, replace(ADDER, description="Another one."))
    assert [tool.description for tool in await store.versions(tenant, "adder")] == [ADDER.description]


async def test_all_versions_of_a_tool_are_found_and_no_other_tool(store: ToolStore, tenant: str) -> None:
    for name, version in (("adder", "1.0.0"), ("adder", "1.1.0"), ("adder2", "1.0.0")):
        await store.add(tenant, replace(ADDER, name=name, version=version))
    assert {tool.reference for tool in await store.versions(tenant, "adder")} == {"adder@1.0.0", "adder@1.1.0"}


async def test_every_tool_is_listed_by_name_and_version(store: ToolStore, tenant: str) -> None:
    for name in ("zip", "Add", "add"):
        await store.add(tenant, replace(ADDER, name=name))
    await store.add(tenant, replace(ADDER, name="add", version="0.9.0"))
    listed = [tool.reference for tool in await store.every(tenant)]
    assert listed == ["Add@1.0.0", "add@0.9.0", "add@1.0.0", "zip@1.0.0"]


async def test_a_tenant_sees_only_its_own_tools(store: ToolStore, tenant: str) -> None:
    await store.add(tenant, ADDER)
    assert not await store.versions(f"{tenant}-other", "adder")
    assert not await store.every(f"{tenant}-other")


async def test_two_tenants_may_use_the_same_name_and_version(store: ToolStore, tenant: str) -> None:
    assert await store.add(tenant, ADDER)
    assert await store.add(f"{tenant}-other", ADDER)


async def test_an_invocation_comes_back_as_it_was_recorded(store: ToolStore, tenant: str) -> None:
    await store.record(tenant, CALL)
    assert list(await store.invocations(tenant, "adder@1.0.0")) == [CALL]


async def test_invocations_come_newest_first_and_of_one_version_only(store: ToolStore, tenant: str) -> None:
    later = NOON + timedelta(seconds=1)
    for name, at in (("inv_b", NOON), ("inv_c", later), ("inv_a", later)):
        await store.record(tenant, replace(CALL, id=name, created_at=at))
    await store.record(tenant, replace(CALL, id="inv_d", tool="adder@2.0.0"))
    assert [one.id for one in await store.invocations(tenant, "adder@1.0.0")] == ["inv_c", "inv_a", "inv_b"]


async def test_a_tenant_sees_only_its_own_invocations(store: ToolStore, tenant: str) -> None:
    await store.record(tenant, CALL)
    assert not await store.invocations(f"{tenant}-other", "adder@1.0.0")


@pytest.fixture
def address(request: pytest.FixtureRequest) -> str:
    dsn: str = request.getfixturevalue("postgres").dsn("tools")
    return dsn


@pytest.mark.parametrize("statement", ["update tool set version = '9.9.9'", "delete from tool_invocation"])
async def test_what_is_written_cannot_be_changed_by_the_service(address: str, tenant: str, statement: str) -> None:
    async with open_database(address, pool=1) as database:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with database.tenant(tenant) as connection:
                await connection.execute(statement)


async def test_a_row_for_another_tenant_is_refused_by_the_database(address: str, tenant: str) -> None:
    async with open_database(address, pool=1) as database:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
            async with database.tenant(tenant) as connection:
                await connection.execute(
                    "insert into tool (tenant_id, name, version, definition, created_at)"
                    " values ('someone-else', 'adder', '1.0.0', '{}', now())"
                )


async def test_without_a_tenant_there_is_nothing_to_see(address: str, tenant: str) -> None:
    async with open_database(address, pool=1) as database:
        await PostgresToolStore(database).add(tenant, ADDER)
        async with database.transaction() as connection:
            assert await connection.fetchval("select count(*) from tool") == 0
