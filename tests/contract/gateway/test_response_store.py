"""What responses may rely on, whichever store they have."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from services.gateway.responses.store import KEPT, LONGEST, Due, Record
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


async def test_work_is_taken_by_one_until_its_claim_ends_and_is_none_once_it_ended(store: Any, tenant: str) -> None:
    work = [replace(FIRST, id=f"resp_{number}", created_at=NOON + timedelta(seconds=number)) for number in range(3)]
    for record in work:
        await store.begin(tenant, record, work=True)
    await store.begin(tenant, replace(FIRST, id="resp_waited"))
    later, latest = NOON + timedelta(seconds=10), NOON + timedelta(seconds=20)

    async def mine(now: datetime, until: datetime) -> list[tuple[str, int]]:
        taken = [one for one in await store.claim(now, until, most=2) if one.tenant == tenant]
        return [(one.id, one.claims) for one in sorted(taken, key=lambda one: one.id)]

    assert await mine(NOON + timedelta(seconds=2), later) == [("resp_0", 1), ("resp_1", 1)]
    assert await mine(NOON + timedelta(seconds=2), latest) == [("resp_2", 1)]
    assert await mine(NOON + timedelta(seconds=2), later) == []
    assert await mine(later, latest) == [("resp_0", 2), ("resp_1", 2)]
    assert await store.finish(tenant, "resp_0", b"done")
    await store.forget(tenant, "resp_1")
    held = [Due(tenant, f"resp_{number}") for number in range(3)]
    assert await store.renew(held, NOON) == [Due(tenant, "resp_2")]
    assert await mine(NOON, latest) == [("resp_2", 2)]
    await store.forget(tenant, "resp_2")


async def test_what_a_call_brought_stands_once_and_nothing_comes_after_the_end(store: Any, tenant: str) -> None:
    await store.begin(tenant, FIRST)
    assert await store.note(tenant, "resp_1", "call0", b"42") == b"42"
    assert await store.note(tenant, "resp_1", "call0", b"43") == b"42"
    assert await store.noted(tenant, "resp_1") == {"call0": b"42"}
    assert await store.note(f"{tenant}-other", "resp_1", "call1", b"theirs") is None
    assert await store.noted(f"{tenant}-other", "resp_1") == {}
    await store.finish(tenant, "resp_1", b"done")
    assert await store.note(tenant, "resp_1", "call1", b"late") is None
    assert await store.noted(tenant, "resp_1") == {"call0": b"42"}
    await store.forget(tenant, "resp_1")
    assert await store.note(tenant, "resp_1", "call1", b"late") is None
    assert await store.noted(tenant, "resp_1") == {}
