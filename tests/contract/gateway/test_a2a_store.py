"""What A2A may rely on, whichever store it has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from services.gateway.a2a.store import Record, Sought
from services.gateway.a2a.store_memory import MemoryA2aStore
from services.gateway.a2a.store_postgres import PostgresA2aStore
from shared.paging import Page
from shared.postgres import open_database
from tests.support.forged import PLACES, refused

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
TASK = Record("task_1", "ctx_1", "Athena", "ses_1", 2, NOON, b"\x00\xff")


@pytest.fixture(params=["memory", "postgres"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    if request.param == "memory":
        yield MemoryA2aStore()
        return
    async with open_database(request.getfixturevalue("postgres").dsn("gateway"), pool=2) as database:
        yield PostgresA2aStore(database)


@pytest.fixture
def tenant() -> str:
    return f"tenant-{uuid4()}"


async def test_a_task_comes_back_as_it_was_kept_last_and_to_its_tenant_alone(store: Any, tenant: str) -> None:
    await store.save(tenant, TASK)
    later = replace(TASK, state=3, task=b"more", updated_at=NOON + timedelta(seconds=1))
    await store.save(tenant, later)
    assert await store.find(tenant, "task_1") == later
    assert await store.find(f"{tenant}-other", "task_1") is None


async def test_tasks_are_found_latest_first_by_page_and_counted(store: Any, tenant: str) -> None:
    for number in range(5):
        one = replace(TASK, id=f"task_{number}", updated_at=NOON + timedelta(seconds=number // 2), state=2 + number % 2)
        await store.save(tenant, one)
    found, total = await store.search(tenant, Sought(), Page(2))
    assert ([one.id for one in found], total) == (["task_4", "task_3", "task_2"], 5)
    cursor = (found[1].updated_at.isoformat(timespec="microseconds"), found[1].id)
    rest, total = await store.search(tenant, Sought(), Page(9, cursor))
    assert ([one.id for one in rest], total) == (["task_2", "task_1", "task_0"], 5)
    for sought, count in (
        (Sought(state=3), 2), (Sought(context_id="ctx_2"), 0), (Sought(agent="Athena"), 5),
        (Sought(changed_since=NOON + timedelta(seconds=1)), 3),
    ):  # fmt: skip
        assert (await store.search(tenant, sought, Page(9)))[1] == count
    await refused(lambda page: store.search(tenant, Sought(), page), PLACES)


async def test_a_tasks_addresses_are_added_replaced_and_forgotten(store: Any, tenant: str) -> None:
    await store.save(tenant, TASK)
    for identity, config in (("b", b"1"), ("a", b"2"), ("b", b"3")):
        await store.put_address(tenant, "task_1", identity, config)
    assert await store.addresses(tenant, "task_1") == [b"2", b"3"]
    await store.delete_address(tenant, "task_1", "a")
    await store.delete_address(tenant, "task_1", "none")
    assert await store.addresses(tenant, "task_1") == [b"3"]
    assert await store.addresses(f"{tenant}-other", "task_1") == []
