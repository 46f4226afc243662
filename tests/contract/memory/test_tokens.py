"""Vectors of the tokens of memories, in every store."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from services.memory.store import Entry, Filter, Probe
from shared.postgres import Database
from tests.support.memory import NOW, entry, vector


def _read(content: str, tokens: bytes, x: float = 1.0, **more: Any) -> Entry:
    made = entry(content, x, 0.1, embedding_model="m", **more)
    return replace(made, tokens=tokens)


async def _tokens(store: Any, tenant: str, model: str = "m") -> dict[int, bytes]:
    probe = Probe(vector(1), ("harbour",), 5, 1, model, tokens=True)
    return dict((await store.gather(tenant, probe, Filter(), now=NOW)).tokens)


async def test_vectors_of_tokens_come_with_what_is_gathered_of_their_model(store: Any, tenant: str) -> None:
    times = [NOW - timedelta(minutes=n) for n in (3, 2, 1)]
    mine, beside, given = await store.add(
        tenant,
        [
            _read("harbour", b"a" * 128, session_id="s", created_at=times[0]),
            _read("next", b"b" * 64, -1, session_id="s", created_at=times[1]),
            entry("given", 0.9, 0.1, session_id="s", created_at=times[2]),
        ],
    )
    assert await _tokens(store, tenant) == {mine.place: b"a" * 128, beside.place: b"b" * 64}
    assert await _tokens(store, tenant, "another") == {}
    unasked = await store.gather(tenant, Probe(vector(1), ("harbour",), 5, 1, "m"), Filter(), now=NOW)
    assert unasked.tokens == {}
    assert await store.tokens(tenant, mine.id) == b"a" * 128
    assert await store.tokens(tenant, given.id) == b""
    assert await store.tokens("another", mine.id) == b""


async def test_vectors_of_tokens_change_and_go_with_their_memory(store: Any, tenant: str) -> None:
    (kept,) = await store.add(tenant, [_read("harbour", b"a" * 64)])
    changed = kept._replace(content="harbour again", content_hash=b"again", updated_at=NOW)
    await store.change(tenant, Entry(changed, vector(1), b"b" * 64), before=kept)
    assert await store.tokens(tenant, kept.id) == b"b" * 64
    assert await store.revector(tenant, [Entry(changed, vector(1), b"c" * 64)]) == 1
    assert await _tokens(store, tenant) == {kept.place: b"c" * 64}
    assert await store.revector(tenant, [Entry(changed._replace(embedding_model="n"), vector(1))]) == 1
    assert await store.tokens(tenant, kept.id) == b""
    (other,) = await store.add(tenant, [_read("tin", b"d" * 64)])
    await store.forget(tenant, [other], [])
    assert await store.tokens(tenant, other.id) == b""
    assert await _tokens(store, tenant) == {}


async def test_what_was_kept_before_there_were_vectors_of_tokens_is_read_later(store: Any, tenant: str) -> None:
    old, changing, going, _given, _set, _done, other = await store.add(
        tenant,
        [
            _read("old", b""), _read("changing", b""), _read("going", b""), entry("given"),
            _read("of a set", b"", embedding_set="set"), _read("done", b"a" * 64),
            replace(entry("another's", embedding_model="n"), tokens=b""),
        ],
    )  # fmt: skip
    unread, count = await store.outdated(tenant, "m", reads=True, limit=9)
    assert (unread[0], {one.content for one in unread[1:]}, count) == (other, {"old", "changing", "going"}, 4)
    assert await store.outdated(tenant, "m", reads=True, limit=2) == (unread[:2], 4)
    assert await store.outdated(tenant, "m", reads=True, limit=0) == ([], 4)
    assert await store.outdated(tenant, "m", reads=False, limit=9) == ([other], 1)
    assert await store.outdated("another", "m", reads=True, limit=9) == ([], 0)

    await store.change(tenant, Entry(changing._replace(updated_at=NOW), vector(1)), before=changing)
    await store.forget(tenant, [going], [])
    before = await store.vector(tenant, old.id)
    read = [Entry(one, vector(0, 1), b"b" * 64) for one in unread[1:]]
    assert await store.read("another", read) == 0
    assert await store.read(tenant, read) == 1
    assert await store.read(tenant, read) == 0
    assert (await store.tokens(tenant, old.id), await store.vector(tenant, old.id)) == (b"b" * 64, before)
    assert await store.tokens(tenant, changing.id) == b""
    left, _ = await store.outdated(tenant, "m", reads=True, limit=9)
    assert [one.content for one in left] == ["another's", "changing"]
    await store.forget(tenant, [old], [])
    assert await store.tokens(tenant, old.id) == b""


@pytest.mark.parametrize("store", ["postgres"], indirect=True)
@pytest.mark.parametrize("width", [384, 1536, 768])
async def test_whoever_deletes_a_memory_deletes_the_vectors_of_its_tokens(
    store: Any, database: Database, tenant: str, width: int
) -> None:
    mine, other = await store.add(
        tenant, [replace(_read(name, b"a" * 64), vector=(1.0, *[0.0] * (width - 1))) for name in ("mine", "other")]
    )
    table = {384: "memory_episode_384", 1536: "memory_episode"}.get(width, "memory_episode_any")
    async with database.tenant(tenant) as connection:
        assert await connection.execute(f"delete from {table} where id = $1", mine.id) == "DELETE 1"
        assert await connection.fetch("select place from memory_tokens") == [(other.place,)]
