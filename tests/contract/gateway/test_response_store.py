"""What responses may rely on, whichever store they have."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from services.gateway.responses.store import KEPT, LONGEST, Record
from services.gateway.responses.store_memory import MemoryResponseStore
from services.gateway.responses.store_postgres import PostgresResponseStore
from shared.postgres import open_database

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
FIRST = Record("resp_1", "", "gen_1", False, NOON, b'{"model":"words"}')


@pytest.fixture(params=["memory", "postgres"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    if request.param == "memory":
        yield MemoryResponseStore()
        return
    async with open_database(request.getfixturevalue("postgres").dsn("gateway"), pool=2) as database:
        yield PostgresResponseStore(database)


@pytest.fixture
def tenant() -> str:
    return f"tenant-{uuid4()}"


async def test_a_response_is_finished_once_and_seen_by_its_tenant_alone(store: Any, tenant: str) -> None:
    await store.begin(tenant, FIRST)
    assert await store.chain(tenant, "resp_1") == [FIRST]
    assert await store.finish(tenant, "resp_1", b"done") is True
    assert await store.finish(tenant, "resp_1", b"again") is False
    assert await store.chain(tenant, "resp_1") == [replace(FIRST, answer=b"done")]
    other = f"{tenant}-other"
    assert await store.chain(other, "resp_1") == []
    assert await store.finish(other, "resp_1", b"theirs") is False
    assert await store.forget(other, "resp_1") is False


async def test_a_conversation_comes_oldest_first_and_no_longer_than_the_longest(store: Any, tenant: str) -> None:
    for number in range(LONGEST + 2):
        previous = f"resp_{number - 1}" if number else ""
        await store.begin(tenant, replace(FIRST, id=f"resp_{number}", previous_id=previous))
    assert [one.id for one in await store.chain(tenant, "resp_2")] == ["resp_0", "resp_1", "resp_2"]
    longest = await store.chain(tenant, f"resp_{LONGEST + 1}")
    assert (len(longest), longest[0].id, longest[-1].id) == (LONGEST, "resp_2", f"resp_{LONGEST + 1}")


async def test_what_is_forgotten_or_too_old_is_gone(store: Any, tenant: str) -> None:
    await store.begin(tenant, FIRST)
    assert await store.forget(tenant, "resp_1") is True
    assert await store.forget(tenant, "resp_1") is False
    await store.begin(tenant, FIRST)
    await store.begin(tenant, replace(FIRST, id="resp_2", previous_id="resp_1", created_at=NOON + KEPT))
    assert len(await store.chain(tenant, "resp_2")) == 2
    late = replace(FIRST, id="resp_3", created_at=NOON + KEPT + timedelta(seconds=1))
    await store.begin(tenant, late)
    assert await store.chain(tenant, "resp_1") == []
    assert [one.id for one in await store.chain(tenant, "resp_2")] == ["resp_2"]
