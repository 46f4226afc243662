"""Changing and forgetting, in every store: what is late changes nothing, and nothing of what was is left."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from services.memory.errors import MemoryExists
from services.memory.store import Entry, Filter, Probe, Receipt
from services.memory.store_postgres import PostgresMemoryStore
from shared.postgres import Database
from tests.support.memory import NOW, entry, memory, vector


async def test_a_changed_memory_is_found_by_its_new_words_only(store: Any, tenant: str) -> None:
    (before,) = await store.add(tenant, [entry("copper")])
    changed = before._replace(content="silver", content_hash=b"silver", updated_at=NOW)
    assert await store.change(tenant, Entry(changed, vector(0, 1)), before=before) == changed
    by_old = await store.gather(tenant, Probe((), ("copper",), 5, 0), Filter(), now=NOW)
    by_new = await store.gather(tenant, Probe((), ("silver",), 5, 0), Filter(), now=NOW)
    assert (len(by_old.pool), [one.memory for one in by_new.pool]) == (0, [changed])
    assert await store.vector(tenant, before.id) == vector(0, 1)


async def test_a_change_never_makes_two_of_one_content(store: Any, tenant: str) -> None:
    first, second = await store.add(tenant, [entry("one"), entry("two", 0, 1)])
    clash = second._replace(content="one", content_hash=first.content_hash)
    with pytest.raises(MemoryExists) as raised:
        await store.change(tenant, Entry(clash, vector(1)), before=second)
    assert raised.value.facts == {"memory_id": first.id}
    assert await store.find(tenant, second.id, now=NOW) == second
    gone = memory("never stored")
    assert await store.change(tenant, Entry(gone, vector(1)), before=gone) is None


async def test_who_read_a_memory_before_it_was_changed_neither_overwrites_nor_forgets_it(
    store: Any, receipts: Any, tenant: str
) -> None:
    (before,) = await store.add(tenant, [entry("copper")])
    silver = before._replace(content="silver", content_hash=b"silver", updated_at=NOW)
    await store.change(tenant, Entry(silver, vector(1)), before=before)
    late = before._replace(content="tin", content_hash=b"tin", updated_at=NOW + timedelta(seconds=1))
    assert await store.change(tenant, Entry(late, vector(1)), before=before) is None
    assert not await store.forget(tenant, [before], [Receipt("rct_l", before.id, before.content_hash, "ada", NOW)])
    assert await receipts.find(tenant, "rct_l") is None
    assert await store.find(tenant, before.id, now=NOW) == silver
    assert set(await store.forget(tenant, [silver], [])) == {silver.id}
    words = ("copper", "silver", "tin")
    gathered = await store.gather(tenant, Probe((), words, 5, 0), Filter(), now=NOW)
    assert (gathered.pool, gathered.corpus.memories) == ([], 0)
    assert gathered.corpus.holding == dict.fromkeys(words, 0)


async def test_what_is_forgotten_is_not_noted_as_found_later(database: Database, tenant: str) -> None:
    store = PostgresMemoryStore(database)
    (gone,) = await store.add(tenant, [entry("gone")])
    await store.used(tenant, [gone.place], now=NOW)
    await store.forget(tenant, [gone], [])
    await store.used(tenant, [gone.place], now=NOW)
    async with database.tenant(tenant) as connection:
        assert await connection.fetchval("select count(*) from memory.memory_use where tenant_id = $1", tenant) == 0
