"""Tenants never meet, whatever is asked, also where somebody talks SQL to the database as the service's own role."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy.local.postgres import Cluster
from services.memory.fact_store import Fact, FactFilter
from services.memory.store import Conversation, Entry, Filter, MemoryType, Probe, Receipt, Said, ShortTermTurn
from shared.paging import Page
from tests.support.memory import NOW, entry, memory, vector

NASTY = st.sampled_from(
    [
        "",
        "'",
        "' or true --",
        "%",
        "_",
        "\\",
        "globex",
        "acme",
        "s",
        "*",
        "'; set app.tenant = 'globex'; --",
        "{}",
        "ä",
        "\u202e",
    ]
)
TEXT = st.one_of(NASTY, st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12))
TIMES = st.one_of(st.none(), st.integers(0, 4_000_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)))
FILTERS = st.builds(
    Filter,
    agent=TEXT, types=st.lists(st.sampled_from(MemoryType), max_size=3).map(tuple), tags=st.lists(TEXT, max_size=2).map(tuple),
    start=TIMES, end=TIMES, session=TEXT, not_session=TEXT, as_of=TIMES, min_importance=st.floats(0, 1), turn=TEXT,
    policy_version=TEXT, metadata=st.dictionaries(TEXT, TEXT, max_size=2), embedding_set=st.sampled_from(["", "", "s"]),
    own_only=st.booleans(),
)  # fmt: skip
WORDS = st.lists(TEXT, max_size=4).map(tuple)
SECRET = "globex secret"


@pytest.fixture
async def other(store: Any, tenant: str) -> str:
    """A tenant beside `tenant`, with a memory that fits every filter that leaves its fields alone."""
    theirs = f"{tenant}-x"
    await store.add(theirs, [entry(SECRET, session_id="s", tags=("*",)), entry(SECRET, embedding_set="s")])
    return theirs


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chosen=FILTERS, words=WORDS, x=st.floats(-1, 1), y=st.floats(0.01, 1))
async def test_no_question_reaches_another_tenants_memories(
    store: Any, tenant: str, other: str, chosen: Filter, words: tuple[str, ...], x: float, y: float
) -> None:
    await store.add(tenant, [entry("mine", session_id="s")])
    probe = Probe(vector(x, y), ("globex", "secret", *words), 5, 2)
    gathered = await store.gather(tenant, probe, chosen, now=NOW)
    near = await store.nearest(tenant, vector(1), chosen, now=NOW, limit=5)
    listed = await store.every(tenant, chosen, now=NOW, newest_first=True, page=Page())
    seen = [one.memory for one in (*gathered.pool, *near)] + list(listed)
    seen += [one.memory for line in gathered.beside.values() for _, one in line]
    assert all(one.content == "mine" for one in seen)
    assert gathered.corpus.holding.get("secret", 0) == 0
    assert [one.content for one in await store.every(other, Filter(), now=NOW, newest_first=True, page=Page())] == [
        SECRET
    ]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(subject=TEXT, relation=TEXT, value=TEXT, at=TIMES, as_of=TIMES)
async def test_no_question_reaches_another_tenants_facts(
    facts: Any, tenant: str, subject: str, relation: str, value: str, at: datetime | None, as_of: datetime | None
) -> None:
    secret = Fact(f"fct_{tenant}", "globex", "keeps", "secret", True, NOW - timedelta(days=9), NOW)
    await facts.record(f"{tenant}-x", [secret])
    assert await facts.every(tenant, FactFilter(subject, relation, value, at, as_of), Page()) == []
    assert await facts.touching(tenant, ["globex", "secret", subject], valid_at=NOW, limit=9) == []
    assert await facts.end(tenant, secret.id, valid_to=NOW, now=NOW) is None


TABLES = ("memory", "memory_episode", "memory_episode_384", "memory_episode_any", "memory_word", "memory_tokens", "memory_count",
          "memory_retention", "memory_use", "forget_receipt", "conversation", "short_term_turn", "fact")  # fmt: skip


@pytest.mark.parametrize("store", ["postgres"], indirect=True)
@pytest.mark.parametrize("conversations", ["postgres"], indirect=True)
@pytest.mark.parametrize("facts", ["postgres"], indirect=True)
async def test_the_services_own_role_sees_and_writes_one_tenant_at_a_time(
    postgres: Cluster, store: Any, conversations: Any, facts: Any, tenant: str
) -> None:
    theirs = f"{tenant}-x"
    (kept, gone) = await store.add(theirs, [replace(entry(SECRET), tokens=b"t" * 64), entry("gone", 0, 1)])
    await store.add(theirs, [Entry(memory("of another width"), (1.0,) * 768)])
    await store.forget(theirs, [gone], [Receipt("rct_1", gone.id, gone.content_hash, "ada", NOW)])
    await store.set_retention(theirs, MemoryType.SEMANTIC, max_memories=5, max_days=5)
    await store.used(theirs, [kept.place], now=NOW)
    await conversations.append_turns(theirs, [Said("s", ShortTermTurn("t", "A", "turn"))], now=NOW)
    await conversations.fold(theirs, "s", [], Conversation(), Conversation("sum", 1))
    await facts.record(theirs, [Fact("fct_1", "a", "b", "c", True, NOW, NOW)])
    connection = await asyncpg.connect(postgres.dsn("memory"))
    try:
        partitions = await connection.fetch(
            "select tablename from pg_tables where schemaname = 'memory' and tablename ~ '_\\d+$' and tablename !~ '_384$'"
        )
        names = [*TABLES, *(row["tablename"] for row in partitions)]
        assert len(names) == len(TABLES) + 80
        for name in names:
            for mine in ("", tenant):
                async with connection.transaction():
                    await connection.execute("select set_config('app.tenant', $1, true)", mine)
                    assert await connection.fetchval(f"select count(*) from {name} where tenant_id = $1", theirs) == 0
                    if name != "memory":
                        assert (
                            await connection.execute(f"delete from {name} where tenant_id = '{theirs}'") == "DELETE 0"
                        )
        for name in TABLES[3:]:
            async with connection.transaction():
                await connection.execute("select set_config('app.tenant', $1, true)", theirs)
                assert await connection.fetchval(f"select count(*) from {name}") >= (0 if name == "memory_use" else 1)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with connection.transaction():
                await connection.execute("select set_config('app.tenant', $1, true)", tenant)
                await connection.execute(
                    "insert into memory_word (tenant_id, word, place, times, length) values ($1, 'w', 1, 1, 1)", theirs
                )
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("alter table memory_word disable row level security")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("set role agentnet_owner")
    finally:
        await connection.close()
