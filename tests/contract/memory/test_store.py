"""One suite for both memory stores."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pgvector.asyncpg import register_vector

from deploy.local.postgres import Cluster
from services.memory.store import TURNS_HELD, Filter, Memory, MemoryType, ShortTermTurn
from services.memory.store_memory import InMemoryStore
from services.memory.store_postgres import PostgresMemoryStore
from shared.ids import RandomIds
from shared.paging import Page
from shared.postgres import open_database

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["memory", "postgres"])
async def store(request: pytest.FixtureRequest, postgres: Cluster) -> AsyncIterator[Any]:
    if request.param == "memory":
        yield InMemoryStore()
        return
    async with open_database(postgres.dsn("memory"), prepare=register_vector) as database:
        yield PostgresMemoryStore(database)


@pytest.fixture
def tenant() -> str:
    return RandomIds().new("t").lower().replace("_", "-")


def memory(content: str, **more: Any) -> Memory:
    made = Memory(
        id=RandomIds().new("mem"), content=content, content_hash=content.encode(), memory_type=MemoryType.SEMANTIC,
        agent="", session_id="", turn_id="", tags=(), metadata={}, importance=0.5, created_at=NOW,
    )  # fmt: skip
    return replace(made, **more)


def vector(x: float, y: float) -> tuple[float, ...]:
    return (x, y, *[0.0] * 382)


async def test_the_nearest_come_first_above_the_threshold(store: Any, tenant: str) -> None:
    await store.add(tenant, memory("east"), vector(1, 0))
    await store.add(tenant, memory("north-east"), vector(1, 1))
    await store.add(tenant, memory("north"), vector(0, 1))
    found = await store.nearest(tenant, vector(1, 0.1), Filter(), now=NOW, min_score=0.5, limit=5)
    assert [one.memory.content for one in found] == ["east", "north-east"]
    assert found[0].score > found[1].score >= 0.5


async def test_a_filter_leaves_what_fits_it(store: Any, tenant: str) -> None:
    for number in range(30):
        await store.add(tenant, memory(f"noise {number}", agent="Apollo"), vector(1, number / 100))
    await store.add(tenant, memory("mine", agent="Athena", tags=("a", "b")), vector(0.2, 1))
    chosen = Filter(agent="Athena", tags=("a",))
    found = await store.nearest(tenant, vector(1, 0), chosen, now=NOW, min_score=0, limit=3)
    assert [one.memory.content for one in found] == ["mine"]


async def test_the_same_content_is_stored_once(store: Any, tenant: str) -> None:
    first = await store.add(tenant, memory("once"), vector(1, 0))
    again = await store.add(tenant, memory("once"), vector(1, 0))
    assert again.id == first.id


async def test_what_is_forgotten_or_has_ended_is_gone(store: Any, tenant: str) -> None:
    kept = await store.add(tenant, memory("kept"), vector(1, 0))
    ended = await store.add(tenant, memory("ended", expires_at=NOW), vector(1, 0))
    assert await store.find(tenant, ended.id, now=NOW) is None
    assert await store.forget(tenant, kept.id)
    assert not await store.forget(tenant, kept.id)
    assert await store.nearest(tenant, vector(1, 0), Filter(), now=NOW, min_score=0, limit=5) == []


async def test_another_tenant_finds_nothing(store: Any, tenant: str) -> None:
    mine = await store.add(tenant, memory("mine"), vector(1, 0))
    assert await store.find("another", mine.id, now=NOW) is None
    assert await store.nearest("another-one", vector(1, 0), Filter(), now=NOW, min_score=0, limit=5) == []
    assert not await store.forget("another", mine.id)


async def test_the_tail_is_bounded_and_keeps_the_newest(store: Any, tenant: str) -> None:
    for number in range(TURNS_HELD + 5):
        held = await store.append_turn(tenant, "s", ShortTermTurn(f"t{number}", "A", str(number)), now=NOW)
    assert held == TURNS_HELD
    assert await store.append_turn(tenant, "s", ShortTermTurn("t54", "A", "again"), now=NOW) == TURNS_HELD
    tail = await store.tail(tenant, "s", limit=3)
    assert [turn.content for turn in tail] == ["52", "53", "54"]


async def test_lists_page_by_time(store: Any, tenant: str) -> None:
    for number in range(3):
        await store.add(tenant, memory(f"m{number}", created_at=NOW + timedelta(seconds=number)), vector(1, 0))
    found = await store.every(tenant, Filter(), now=NOW, newest_first=True, page=Page(2))
    assert [one.content for one in found] == ["m2", "m1", "m0"]
    cursor = (found[1].created_at.isoformat(), found[1].id)
    rest = await store.every(tenant, Filter(), now=NOW, newest_first=True, page=Page(2, cursor))
    assert [one.content for one in rest] == ["m0"]
