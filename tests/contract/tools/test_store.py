"""What the registry may rely on, whichever store it has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from uuid import uuid4

import asyncpg
import pytest

from services.tools.store import AuditEntry, Effect, Function, Invocation, Quota, Tool, ToolStore
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
    examples=({"description": "Adds.", "arguments": {"a": 1}, "result": 1},),
    tags=("sums",),
    level="restricted",
    state="draft",
    allowed_roles=("agent",),
    user_rate_limit_per_min=3,
    cache_ttl=timedelta(milliseconds=1500),
    min_isolation="gvisor",
    quota=Quota(10, 2),
    changelog="First.",
    schema_hash="cd" * 32,
    target={"url": "https://example.com/"},
)
BORN = AuditEntry("aud_1", "adder@1.0.0", "registered", "ada", "", "active", "First.", NOON)
EFFECT = Effect("req_1", b"\x01\xff", "inv_1", "reserved", NOON + timedelta(seconds=30), None, NOON)
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


async def add(store: ToolStore, tenant: str, tool: Tool) -> bool:
    entry = replace(BORN, id=f"aud_{uuid4()}", tool=tool.reference, to_state=tool.state)
    return await store.add(tenant, tool, entry)


async def test_a_tool_comes_back_as_it_was_added(store: ToolStore, tenant: str) -> None:
    assert await add(store, tenant, ADDER)
    assert list(await store.versions(tenant, "adder")) == [ADDER]


async def test_a_tool_without_function_auth_and_output_comes_back_as_it_was_added(
    store: ToolStore, tenant: str
) -> None:
    remote = replace(ADDER, exec_mode="external_api", function=None, auth=None, output_schema=None, allowed_agents=())
    assert await add(store, tenant, remote)
    assert list(await store.versions(tenant, "adder")) == [remote]


async def test_a_version_is_never_changed(store: ToolStore, tenant: str) -> None:
    await add(store, tenant, ADDER)
    assert not await add(store, tenant, replace(ADDER, description="Another one."))
    assert [tool.description for tool in await store.versions(tenant, "adder")] == [ADDER.description]


async def test_all_versions_of_a_tool_are_found_and_no_other_tool(store: ToolStore, tenant: str) -> None:
    for name, version in (("adder", "1.0.0"), ("adder", "1.1.0"), ("adder2", "1.0.0")):
        await add(store, tenant, replace(ADDER, name=name, version=version))
    assert {tool.reference for tool in await store.versions(tenant, "adder")} == {"adder@1.0.0", "adder@1.1.0"}


async def test_every_tool_is_listed_by_name_and_version(store: ToolStore, tenant: str) -> None:
    for name in ("zip", "Add", "add"):
        await add(store, tenant, replace(ADDER, name=name))
    await add(store, tenant, replace(ADDER, name="add", version="0.9.0"))
    listed = [tool.reference for tool in await store.every(tenant)]
    assert listed == ["Add@1.0.0", "add@0.9.0", "add@1.0.0", "zip@1.0.0"]


async def test_a_tenant_sees_only_its_own_tools(store: ToolStore, tenant: str) -> None:
    await add(store, tenant, ADDER)
    assert not await store.versions(f"{tenant}-other", "adder")
    assert not await store.every(f"{tenant}-other")


async def test_two_tenants_may_use_the_same_name_and_version(store: ToolStore, tenant: str) -> None:
    assert await add(store, tenant, ADDER)
    assert await add(store, f"{tenant}-other", ADDER)


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
        await add(PostgresToolStore(database), tenant, ADDER)
        async with database.transaction() as connection:
            assert await connection.fetchval("select count(*) from tool") == 0


async def test_a_registration_is_in_the_audit_log(store: ToolStore, tenant: str) -> None:
    entry = replace(BORN, id=f"aud_{uuid4()}")
    assert await store.add(tenant, ADDER, entry)
    assert not await store.add(tenant, ADDER, replace(entry, id=f"aud_{uuid4()}"))
    assert list(await store.audit(tenant, "adder@1.0.0")) == [entry]
    assert not await store.audit(f"{tenant}-other", "adder@1.0.0")


async def test_a_state_moves_once_from_what_it_was(store: ToolStore, tenant: str) -> None:
    await add(store, tenant, ADDER)
    tried = replace(BORN, id=f"aud_{uuid4()}", action="state", from_state="draft", to_state="testing", created_at=NOON)
    again = replace(tried, id=f"aud_{uuid4()}")
    assert await store.move(tenant, ADDER, tried)
    assert not await store.move(tenant, ADDER, again)
    assert [tool.state for tool in await store.versions(tenant, "adder")] == ["testing"]
    assert [tool.state for tool in await store.every(tenant)] == ["testing"]
    assert [entry.action for entry in await store.audit(tenant, "adder@1.0.0")].count("state") == 1


async def test_calls_are_counted_up_to_the_quota_of_the_day_and_the_total(store: ToolStore, tenant: str) -> None:
    tool, today, tomorrow = replace(ADDER, quota=Quota(3, 2)), date(2026, 1, 1), date(2026, 1, 2)
    counted = [await store.count(tenant, tool, day) for day in (today, today, today, tomorrow, tomorrow)]
    assert counted == ["", "", "day", "", "total"]
    assert await store.counted(tenant, tool.reference, tomorrow) == (3, 1)
    assert await store.counted(f"{tenant}-other", tool.reference, tomorrow) == (0, 0)


async def test_many_at_once_never_exceed_the_quota(store: ToolStore, tenant: str) -> None:
    tool, today = replace(ADDER, quota=Quota(0, 5)), date(2026, 1, 1)
    counted = await asyncio.gather(*(store.count(tenant, tool, today) for _ in range(20)))
    assert counted.count("") == 5


async def test_an_effect_is_reserved_by_the_first_and_shown_to_the_next(store: ToolStore, tenant: str) -> None:
    assert await store.reserve(tenant, EFFECT) == EFFECT
    assert await store.reserve(tenant, replace(EFFECT, invocation_id="inv_2")) == EFFECT
    mine = await store.reserve(f"{tenant}-other", replace(EFFECT, invocation_id="inv_2"))
    assert mine.invocation_id == "inv_2"


async def test_an_effect_goes_through_its_steps_and_keeps_its_outcome(store: ToolStore, tenant: str) -> None:
    await store.reserve(tenant, EFFECT)
    done = replace(EFFECT, step="done", outcome={"status": "OK", "result": [1]})
    assert await store.advance(tenant, replace(EFFECT, step="started"))
    assert await store.advance(tenant, done)
    assert await store.reserve(tenant, replace(EFFECT, invocation_id="inv_2")) == done


async def test_an_outcome_keeps_every_character(store: ToolStore, tenant: str) -> None:
    told = {"status": "OK", "result": {"a\x00b": "\x00 \U0001f600 \\u0000"}}
    await store.reserve(tenant, EFFECT)
    assert await store.advance(tenant, replace(EFFECT, step="done", outcome=told))
    assert (await store.reserve(tenant, replace(EFFECT, invocation_id="inv_9"))).outcome == told


async def test_an_effect_is_taken_over_once_and_its_first_owner_may_not_go_on(store: ToolStore, tenant: str) -> None:
    await store.reserve(tenant, EFFECT)
    mine = replace(EFFECT, invocation_id="inv_2", leased_until=NOON + timedelta(minutes=5))
    assert await store.take_over(tenant, EFFECT, mine)
    assert not await store.take_over(tenant, EFFECT, replace(mine, invocation_id="inv_3"))
    assert not await store.advance(tenant, replace(EFFECT, step="started"))
    assert await store.advance(tenant, replace(mine, step="started"))


async def test_old_effects_are_forgotten(store: ToolStore, tenant: str) -> None:
    await store.reserve(tenant, EFFECT)
    await store.reserve(tenant, replace(EFFECT, request_id="req_2", created_at=NOON + timedelta(hours=1)))
    assert await store.forget_effects(tenant, NOON + timedelta(minutes=30)) == 1
    assert (await store.reserve(tenant, replace(EFFECT, invocation_id="inv_9"))).invocation_id == "inv_9"
