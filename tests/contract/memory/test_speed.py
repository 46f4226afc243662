"""Ten thousand memories and a second; what a search asks of Postgres."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence

import pytest
from pgvector.asyncpg import register_vector

from deploy.local.postgres import Cluster
from services.memory import common, rank, search_postgres, store_postgres
from services.memory.store import Entry, Filter, Probe
from services.memory.store_postgres import PostgresMemoryStore
from services.memory.texts import query_words
from shared.postgres import Database, open_database
from tests.support.memory import NOW, entry, memory, vector

WORDS = [f"word{number}" for number in range(2_000)]
_PLANNED = "select generic_plans, custom_plans from pg_prepared_statements where statement like '%memory\\_episode%'"


async def test_a_search_is_planned_once_a_connection_and_counts_common_words_once(
    postgres: Cluster, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common, "_COMMON", 1)
    probe = Probe(vector(1), ("one",), 60, 1)
    async with open_database(postgres.dsn("memory"), pool=1, prepare=register_vector, stateless=True) as database:
        store = PostgresMemoryStore(database)
        await store.add(tenant, [entry(text, session_id="s") for text in ("one", "two")])
        for _ in range(3):
            found = await store.gather(tenant, probe, Filter(), now=NOW)
            assert len(found.beside) == 2
            assert found.corpus.holding == {"one": 1}
            await store.add(tenant, [entry("one more", session_id="t")])
        plans = await database.statement(_PLANNED)
    assert [tuple(row) for row in plans if row["generic_plans"]] == [(3, 0), (3, 0)]


@pytest.mark.parametrize(("memories", "walk"), [(0, "100"), (100_000, "100"), (1_000_000, "600"), (10**9, "800")])
async def test_the_more_memories_a_tenant_has_the_wider_is_the_walk(
    postgres: Cluster, tenant: str, memories: int, walk: str
) -> None:
    async with open_database(postgres.dsn("memory"), pool=1, prepare=register_vector, stateless=True) as database:
        async with database.tenant(tenant) as connection:
            await connection.execute(search_postgres._SQL["count"], tenant, "semantic", memories, 0, 0)
        async with database.transaction() as connection:
            await connection.execute(search_postgres._SQL["searching"], tenant)
            assert await connection.fetchval("select current_setting('hnsw.ef_search')") == walk


async def test_a_search_within_a_session_walks_no_graph(
    postgres: Cluster, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_postgres, "_REMEMBERED", 1)
    async with open_database(postgres.dsn("memory"), pool=1, prepare=register_vector, stateless=True) as database:
        store = PostgresMemoryStore(database)
        await store.add(tenant, [entry("one", session_id="s"), entry("two", session_id="other")])
        for searched in (f"{tenant}-other", tenant):
            found = await store.nearest(searched, vector(1), Filter(session="s"), now=NOW, limit=10)
        walks = await database.statement(_PLANNED + " and statement like '%order by embedding <=>%'")
    assert [one.memory.content for one in found] == ["one"]
    assert walks == []


async def test_a_search_by_a_rare_tag_looks_at_what_has_it_and_walks_no_graph(postgres: Cluster, tenant: str) -> None:
    async with open_database(postgres.dsn("memory"), pool=1, prepare=register_vector, stateless=True) as database:
        store = PostgresMemoryStore(database)
        rare, both, none = await store.add(
            tenant, [entry("one", tags=("rare",)), entry("two", 1, 1, tags=("rare", "common")), entry("three")]
        )
        await store.change(tenant, entry("three", id=none.id, place=none.place, tags=("late",)), before=none)
        await store.forget(tenant, [rare], [])
        for tags, content in ((("common", "rare"), "two"), (("late",), "three")):
            found = await store.nearest(tenant, vector(1), Filter(tags=tags), now=NOW, limit=10)
            assert [one.memory.content for one in found] == [content]
        assert await store.nearest(tenant, vector(1), Filter(tags=("unknown",)), now=NOW, limit=10) == []
        walks = await database.statement(_PLANNED + " and statement like '%order by embedding <=>%'")
        async with database.tenant(tenant) as connection:
            left = await connection.fetch("select word from memory_word where word like '#%' order by word")
    assert walks == []
    assert [row["word"] for row in left] == ["#common", "#late", "#rare"]
    assert both.tags == ("rare", "common")


async def test_what_a_later_part_of_the_walk_finds_nearer_is_found_under_a_filter(
    postgres: Cluster, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_postgres, "_TAGGED", 0)
    monkeypatch.setattr(store_postgres, "_FRESH", 0)
    monkeypatch.setitem(
        search_postgres._SQL, "searching", search_postgres._SQL["searching"].replace("650, 100)", "650, 10)")
    )
    chance = random.Random(1)
    async with open_database(postgres.dsn("memory"), pool=1, prepare=register_vector, stateless=True) as database:
        store = PostgresMemoryStore(database)
        many = [tuple(chance.gauss(0, 1) for _ in range(384)) for _ in range(400)]
        tags = [("rare",) if at % 25 == 0 else () for at in range(400)]
        await store.add(tenant, [Entry(memory(str(at), tags=tags[at]), many[at]) for at in range(400)])
        await store.tend(tenant, busy=lambda: False)
        shares = []
        for _ in range(20):
            asked = tuple(chance.gauss(0, 1) for _ in range(384))
            found = await store.nearest(tenant, asked, Filter(tags=("rare",)), now=NOW, limit=5)
            nearest = sorted(range(0, 400, 25), key=lambda at: -_cosine(many[at], asked))[:5]
            assert [one.cosine for one in found] == sorted((one.cosine for one in found), reverse=True)
            shares.append(len({one.memory.content for one in found} & {str(at) for at in nearest}) / 5)
    assert sum(shares) / len(shares) > 0.98


def _cosine(first: Sequence[float], second: Sequence[float]) -> float:
    return sum(one * other for one, other in zip(first, second, strict=True)) / math.hypot(*first) / math.hypot(*second)


@pytest.mark.heavy
async def test_a_question_to_ten_thousand_memories_takes_less_than_a_second(database: Database, tenant: str) -> None:
    store, chance = PostgresMemoryStore(database), random.Random(1)

    def made(number: int) -> Entry:
        text = f"{number} " + " ".join(chance.choices(WORDS, k=8))
        return Entry(memory(text, session_id=f"s{number // 20}"), vector(chance.gauss(0, 1), chance.gauss(0, 1)))

    for start in range(0, 10_000, 1_000):
        await store.add(tenant, [made(number) for number in range(start, start + 1_000)])
    slowest = 0.0
    for _ in range(5):
        query = " ".join(chance.choices(WORDS, k=4))
        direction = vector(chance.gauss(0, 1), chance.gauss(0, 1))
        began = time.perf_counter()
        gathered = await store.gather(tenant, Probe(direction, query_words(query), 60, 1), Filter(), now=NOW)
        found = rank.ranked(query, gathered, rank.Taste(), now=NOW, limit=10)
        slowest = max(slowest, time.perf_counter() - began)
        assert len(found) == 10
    assert slowest < 1.0
