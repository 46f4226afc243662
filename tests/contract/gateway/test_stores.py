"""What gateway may rely on, whichever stores it has: keys, the directory, the audit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from services.gateway.audit import AuditEntry, AuditFilter
from services.gateway.audit_memory import MemoryAuditStore
from services.gateway.audit_postgres import PostgresAuditStore
from services.gateway.directory import Role, Tenant, User
from services.gateway.directory_memory import MemoryDirectoryStore
from services.gateway.directory_postgres import PostgresDirectoryStore
from services.gateway.store import ApiKey
from services.gateway.store_memory import MemoryKeyStore
from services.gateway.store_postgres import PostgresKeyStore
from shared.paging import Page
from shared.postgres import open_database
from tests.support import forged

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
KEY = ApiKey(
    id="key_1",
    display_name="nightly — größer",
    roles=("auditor", "operator"),
    secret_hash=b"\x00\xff",
    creator="ada",
    created_at=NOON,
    expires_at=NOON + timedelta(days=9),
    scopes=("session:read",),
    service_account="svc",
)
TENANT = Tenant("blue", "Blue", suspended=False, requests_per_second=5, burst=9, created_at=NOON)
USER = User("ann", "Ann", service_account=False, roles=("auditor",), suspended=False, created_at=NOON)
ENTRY = AuditEntry("aud_1", NOON, "ada", "key.created", "key_1", "", "127.0.0.1", "req-1")


@pytest.fixture(params=["memory", "postgres"])
def dsn(request: pytest.FixtureRequest) -> str | None:
    return request.getfixturevalue("postgres").dsn("gateway") if request.param == "postgres" else None


@pytest.fixture
async def stores(dsn: str | None) -> AsyncIterator[tuple[Any, Any, Any]]:
    if dsn is None:
        yield MemoryKeyStore(), MemoryDirectoryStore(), MemoryAuditStore()
        return
    async with open_database(dsn, pool=2) as database:
        yield PostgresKeyStore(database), PostgresDirectoryStore(database), PostgresAuditStore(database)


@pytest.fixture
def keys(stores: Any) -> Any:
    return stores[0]


@pytest.fixture
def directory(stores: Any) -> Any:
    return stores[1]


@pytest.fixture
def audit(stores: Any) -> Any:
    return stores[2]


@pytest.fixture
def tenant() -> str:
    return f"tenant-{uuid4()}"


async def test_a_key_comes_back_as_it_was_added_and_to_its_tenant_alone(keys: Any, tenant: str) -> None:
    assert await keys.add(tenant, KEY, request_id=None)
    assert await keys.find(tenant, "key_1") == KEY
    assert await keys.find(f"{tenant}-other", "key_1") is None


async def test_a_request_id_makes_one_key(keys: Any, tenant: str) -> None:
    assert await keys.add(tenant, KEY, request_id="r")
    assert not await keys.add(tenant, replace(KEY, id="key_2"), request_id="r")
    assert await keys.find(tenant, "key_2") is None


async def test_a_key_ends_at_the_earlier_of_two_ends(keys: Any, tenant: str) -> None:
    await keys.add(tenant, KEY, request_id=None)
    await keys.add(tenant, replace(KEY, id="key_2", expires_at=None), request_id=None)
    soon = NOON + timedelta(hours=1)
    for key_id in ("key_1", "key_2"):
        assert (await keys.end(tenant, key_id, at=soon)).expires_at == soon
        assert (await keys.end(tenant, key_id, at=soon + timedelta(hours=1))).expires_at == soon
    assert await keys.end(tenant, "key_3", at=soon) is None


async def test_the_first_revocation_stays_and_use_is_noted(keys: Any, tenant: str) -> None:
    await keys.add(tenant, KEY, request_id=None)
    await keys.used(tenant, "key_1", at=NOON)
    for hours in (1, 2):
        await keys.revoke(tenant, "key_1", at=NOON + timedelta(hours=hours))
    found = await keys.find(tenant, "key_1")
    assert (found.revoked_at, found.last_used_at) == (NOON + timedelta(hours=1), NOON)


async def test_keys_are_listed_newest_first_by_pages(keys: Any, tenant: str) -> None:
    for number in range(3):
        made = replace(KEY, id=f"key_{number}", created_at=NOON + timedelta(seconds=number))
        await keys.add(tenant, made, request_id=None)
    await keys.revoke(tenant, "key_1", at=NOON)
    first = await keys.keys(tenant, active_at=NOON, page=Page(size=1))
    assert [key.id for key in first] == ["key_2", "key_0"]
    seen = (first[0].created_at.isoformat(), first[0].id)
    assert [key.id for key in await keys.keys(tenant, active_at=None, page=Page(2, seen))] == ["key_1", "key_0"]
    await forged.refused(lambda page: keys.keys(tenant, active_at=None, page=page), forged.PLACES)


async def test_records_are_replaced_and_keep_their_first_time(directory: Any, tenant: str) -> None:
    later = NOON + timedelta(days=1)
    assert await directory.put_tenant(tenant, TENANT) == TENANT
    assert (await directory.put_tenant(tenant, replace(TENANT, suspended=True, created_at=later))).created_at == NOON
    assert await directory.tenant(tenant, "blue") == replace(TENANT, suspended=True)
    assert await directory.put_user(tenant, USER) == USER
    assert (await directory.put_user(tenant, replace(USER, roles=(), created_at=later))).created_at == NOON
    assert await directory.user(tenant, "ann") == replace(USER, roles=())
    assert await directory.user(f"{tenant}-other", "ann") is None
    assert await directory.tenant(f"{tenant}-other", "blue") is None


async def test_records_are_listed_in_order_by_pages_and_kind(directory: Any, tenant: str) -> None:
    for name in ("b", "a", "Z", "c"):
        await directory.put_user(tenant, replace(USER, subject=name, service_account=name == "c"))
        await directory.put_tenant(tenant, replace(TENANT, id=name.lower(), suspended=name == "a"))
    everyone = await directory.users(tenant, service_accounts=None, page=Page(size=2))
    assert [user.subject for user in everyone] == ["Z", "a", "b"]
    assert [user.subject for user in await directory.users(tenant, service_accounts=None, page=Page(2, ("a",)))] == [
        "b",
        "c",
    ]
    assert [user.subject for user in await directory.users(tenant, service_accounts=True, page=Page())] == ["c"]
    assert [one.id for one in await directory.tenants(tenant, suspended=False, page=Page())] == ["b", "c", "z"]
    await forged.refused(lambda page: directory.users(tenant, service_accounts=None, page=page), forged.ROWS)
    await forged.refused(lambda page: directory.tenants(tenant, suspended=None, page=page), forged.ROWS)


async def test_what_is_deleted_is_gone_and_was_there_once(directory: Any, tenant: str) -> None:
    await directory.put_user(tenant, USER)
    await directory.put_role(tenant, Role("analyst", ("a:read",)))
    await directory.put_role(tenant, Role("analyst", ("b:read", "c:read"), "looks"))
    assert list(await directory.roles(tenant)) == [Role("analyst", ("b:read", "c:read"), "looks")]
    assert [await directory.delete_user(tenant, "ann"), await directory.delete_user(tenant, "ann")] == [True, False]
    assert [await directory.delete_role(tenant, "analyst") for _ in range(2)] == [True, False]
    assert not await directory.roles(tenant)


async def test_the_audit_is_read_newest_first_and_filtered(audit: Any, tenant: str) -> None:
    later = NOON + timedelta(minutes=1)
    refused = replace(
        ENTRY, id="aud_2", created_at=later, action="admission.refused", reason="TOKEN_EXPIRED", subject=""
    )
    await audit.add(tenant, [ENTRY, refused])
    assert list(await audit.entries(tenant, AuditFilter(), Page())) == [refused, ENTRY]
    assert list(await audit.entries(tenant, AuditFilter(action="key.created"), Page())) == [ENTRY]
    assert list(await audit.entries(tenant, AuditFilter(subject="ada"), Page())) == [ENTRY]
    assert list(await audit.entries(tenant, AuditFilter(start=later), Page())) == [refused]
    assert list(await audit.entries(tenant, AuditFilter(end=later), Page())) == [ENTRY]
    assert list(await audit.entries(tenant, AuditFilter(), Page(1, (later.isoformat(), "aud_2")))) == [ENTRY]
    assert not await audit.entries(f"{tenant}-other", AuditFilter(), Page())
    await forged.refused(lambda page: audit.entries(tenant, AuditFilter(), page), forged.PLACES)


@pytest.mark.parametrize("statement", ["update audit_entry set reason = ''", "delete from audit_entry"])
async def test_the_service_cannot_change_the_audit(request: pytest.FixtureRequest, tenant: str, statement: str) -> None:
    async with open_database(request.getfixturevalue("postgres").dsn("gateway"), pool=1) as database:
        await PostgresAuditStore(database).add(tenant, [ENTRY])
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with database.tenant(tenant) as connection:
                await connection.execute(statement)
