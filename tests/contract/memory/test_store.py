"""One suite for every store of memories."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import chain, repeat
from typing import Any

import pytest

from services.memory.errors import EmbeddingWidthInvalid, MemoryExists
from services.memory.store import Entry, Filter, MemoryType, Probe, Receipt
from services.memory.texts import query_words
from shared.paging import Page
from tests.support.forged import PLACES, refused
from tests.support.memory import NOW, entry, memory, vector


async def test_the_nearest_come_first(store: Any, tenant: str) -> None:
    await store.add(tenant, [entry("east"), entry("north-east", 1, 1), entry("north", 0, 1)])
    found = await store.nearest(tenant, vector(1, 0.1), Filter(), now=NOW, limit=2)
    assert [one.memory.content for one in found] == ["east", "north-east"]
    assert found[0].cosine > found[1].cosine > 0.7


@pytest.mark.parametrize(
    "chosen",
    [
        Filter(agent="Athena"),
        Filter(tags=("a", "b")),
        Filter(types=(MemoryType.LONG_TERM,)),
        Filter(session="s1"),
        Filter(start=NOW + timedelta(days=1)),
        Filter(min_importance=0.9),
        Filter(turn="t1"),
        Filter(policy_version="p@2"),
        Filter(metadata={"topic": "war", "year": "7"}),
        Filter(not_session="noise"),
        Filter(agent="Athena", own_only=True),
    ],
)  # fmt: skip
async def test_a_filter_leaves_what_fits_it_and_all_of_it(store: Any, tenant: str, chosen: Filter) -> None:
    noise = [entry(f"noise {n}", 1, n / 100, agent="Apollo", session_id="noise") for n in range(30)]
    mine = entry(
        "mine", 0.2, 1, agent="Athena", tags=("a", "b", "c"), memory_type=MemoryType.LONG_TERM, session_id="s1",
        created_at=NOW + timedelta(days=2), importance=1.0, turn_id="t1", policy_version="p@2",
        metadata={"topic": "war", "year": 7, "deep": {"x": 1}},
    )  # fmt: skip
    await store.add(tenant, [*noise, mine])
    near = await store.nearest(tenant, vector(1), chosen, now=NOW, limit=3)
    listed = await store.every(tenant, chosen, now=NOW, newest_first=True, page=Page())
    probe = Probe(vector(1), ("mine", "noise"), 10, 0)
    gathered = await store.gather(tenant, probe, chosen, now=NOW)
    assert [one.memory.content for one in near] == ["mine"]
    assert [one.content for one in listed] == ["mine"]
    assert [one.memory.content for one in gathered.pool] == ["mine"]


async def test_what_ends_before_is_excluded_and_as_of_brings_it_back(store: Any, tenant: str) -> None:
    day = timedelta(days=1)
    early = entry("early", created_at=NOW - 9 * day, expires_at=NOW - day)
    await store.add(tenant, [early, entry("late", 1, 1, created_at=NOW - day)])
    today = await store.nearest(tenant, vector(1), Filter(), now=NOW, limit=5)
    then = await store.nearest(tenant, vector(1), Filter(as_of=NOW - 5 * day), now=NOW, limit=5)
    assert [one.memory.content for one in today] == ["late"]
    assert [one.memory.content for one in then] == ["early"]
    assert await store.find(tenant, early.memory.id, now=NOW) is None


async def test_the_same_content_is_stored_once_also_within_a_batch(store: Any, tenant: str) -> None:
    (first,) = await store.add(tenant, [entry("once")])
    again, other, twice = await store.add(tenant, [entry("once"), entry("new"), entry("new")])
    by_other = await store.add(tenant, [entry("once", agent="Athena"), entry("once", memory_type=MemoryType.EPISODIC)])
    assert again.id == first.id
    assert twice.id == other.id
    assert len({first.id, other.id, *(one.id for one in by_other)}) == 4
    assert sum(one.memories for one in await store.usage(tenant)) == 4


async def test_a_batch_with_a_wrong_vector_stores_nothing(store: Any, tenant: str) -> None:
    bad = Entry(memory("bad"), (1.0,) * 1536)
    with pytest.raises(EmbeddingWidthInvalid):
        await store.add(tenant, [entry("good"), bad])
    with pytest.raises(EmbeddingWidthInvalid):
        await store.add(tenant, [Entry(memory("narrow"), (1.0, 0.0))])
    assert await store.every(tenant, Filter(), now=NOW, newest_first=True, page=Page()) == []
    assert await store.usage(tenant) == []


async def test_both_widths_are_kept_and_searched_apart(store: Any, tenant: str) -> None:
    wide = (1.0, *[0.0] * 1535)
    await store.add(tenant, [entry("narrow")])
    (kept,) = await store.add(tenant, [Entry(memory("wide"), wide)])
    found = await store.nearest(tenant, wide, Filter(), now=NOW, limit=5)
    assert [one.memory.content for one in found] == ["wide"]
    assert await store.vector(tenant, kept.id) == wide
    assert len(await store.every(tenant, Filter(), now=NOW, newest_first=True, page=Page())) == 2


async def test_words_find_what_meaning_does_not(store: Any, tenant: str) -> None:
    await store.add(tenant, [entry(f"filler {n}", 1, n / 50) for n in range(40)])
    await store.add(tenant, [entry("The Kerberos ticket expired", -1), entry("Kerberos and kerberos again", -1, 0.5)])
    gathered = await store.gather(tenant, Probe(vector(1), ("kerbero", "ticket"), 5, 0), Filter(), now=NOW)
    contents = {one.memory.content: one.cosine for one in gathered.pool}
    assert {"The Kerberos ticket expired", "Kerberos and kerberos again"} <= set(contents)
    assert contents["The Kerberos ticket expired"] == pytest.approx(-1, abs=1e-3)
    assert gathered.corpus.memories == 42
    assert gathered.corpus.holding == {"kerbero": 2, "ticket": 1}


async def test_a_narrow_filter_reaches_past_the_best_by_words(store: Any, tenant: str) -> None:
    noise = [entry(f"harbour harbour {n}", 1, n / 40) for n in range(40)]
    await store.add(tenant, [*noise, entry("one harbour among many other words here", 0, 1, tags=("rare",))])
    gathered = await store.gather(tenant, Probe((), ("harbour",), 3, 0), Filter(tags=("rare",)), now=NOW)
    assert [one.memory.tags for one in gathered.pool] == [("rare",)]


async def test_words_alone_need_no_vector(store: Any, tenant: str) -> None:
    await store.add(tenant, [entry("alpha beta"), entry("gamma", 0, 1)])
    gathered = await store.gather(tenant, Probe((), ("beta",), 5, 1), Filter(), now=NOW)
    assert [(one.memory.content, one.cosine) for one in gathered.pool] == [("alpha beta", 0.0)]


async def test_neighbours_stand_in_their_order_and_in_their_session(store: Any, tenant: str) -> None:
    turns = [
        entry(f"turn {n}", 0, 1, session_id="s", created_at=NOW + timedelta(seconds=n)) for n in range(6)
    ]  # fmt: skip
    await store.add(tenant, turns)
    await store.add(tenant, [entry("elsewhere", 0, 1, session_id="other", created_at=NOW + timedelta(seconds=3))])
    (middle,) = await store.add(
        tenant, [entry("needle", 1, session_id="s", created_at=NOW + timedelta(seconds=2.5))]
    )  # fmt: skip
    gathered = await store.gather(tenant, Probe(vector(1), (), 2, 2), Filter(), now=NOW + timedelta(days=1))
    beside = [(offset, one.memory.content) for offset, one in gathered.beside[middle.place]]
    assert beside == [(-2, "turn 1"), (-1, "turn 2"), (1, "turn 3"), (2, "turn 4")]
    assert all(one.cosine == pytest.approx(0, abs=1e-3) for _, one in gathered.beside[middle.place])


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


async def test_what_is_forgotten_leaves_a_receipt_and_nothing_else(store: Any, receipts: Any, tenant: str) -> None:
    kept, gone = await store.add(tenant, [entry("kept here"), entry("gone there")])
    receipt = Receipt("rct_1", gone.id, gone.content_hash, "ada", NOW)
    assert await store.forget(tenant, [gone], [receipt]) == 1
    assert await store.forget(tenant, [gone], [replace(receipt, id="rct_2")]) == 0
    assert await receipts.find(tenant, "rct_1") == receipt
    assert await receipts.find(tenant, "rct_2") is None
    words = query_words("kept here gone there")
    gathered = await store.gather(tenant, Probe(vector(1), words, 5, 0), Filter(), now=NOW)
    assert [one.memory.id for one in gathered.pool] == [kept.id]
    assert gathered.corpus.holding["go"] == 0
    assert [(one.memories, one.characters) for one in await store.usage(tenant)] == [(1, 9)]
    assert await store.vector(tenant, gone.id) == ()


async def test_another_tenant_finds_nothing(store: Any, tenant: str) -> None:
    (mine,) = await store.add(tenant, [entry("mine", session_id="s")])
    probe = Probe(vector(1), ("mine",), 5, 2)
    assert await store.find("another", mine.id, now=NOW) is None
    assert await store.vector("another", mine.id) == ()
    assert (await store.gather("another", probe, Filter(), now=NOW)).pool == []
    assert await store.forget("another", [mine], []) == 0
    assert await store.change("another", Entry(mine, vector(0, 1)), before=mine) is None
    assert await store.similar_words("another", "mint") == []
    assert await store.usage("another") == []


async def test_texts_of_an_embedding_set_are_no_memories(store: Any, tenant: str) -> None:
    await store.add(tenant, [entry("secret recipe", embedding_set="restricted"), entry("open", 0, 1)])
    everything = await store.gather(tenant, Probe(vector(1), ("secret", "open"), 5, 0), Filter(), now=NOW)
    (held,) = await store.nearest(tenant, vector(1), Filter(embedding_set="restricted"), now=NOW, limit=5)
    assert [one.memory.content for one in everything.pool] == ["open"]
    assert held.memory.content == "secret recipe"


async def test_lists_page_by_time(store: Any, tenant: str) -> None:
    await store.add(tenant, [entry(f"m{n}", 1, n, created_at=NOW + timedelta(seconds=n)) for n in range(3)])
    found = await store.every(tenant, Filter(), now=NOW, newest_first=True, page=Page(2))
    assert [one.content for one in found] == ["m2", "m1", "m0"]
    cursor = (found[1].created_at.isoformat(), found[1].id)
    rest = await store.every(tenant, Filter(), now=NOW, newest_first=True, page=Page(2, cursor))
    assert [one.content for one in rest] == ["m0"]
    await refused(lambda page: store.every(tenant, Filter(), now=NOW, newest_first=True, page=page), PLACES)


async def test_usage_counts_by_type_and_shows_the_bounds(store: Any, tenant: str) -> None:
    await store.add(tenant, [entry("ab"), entry("abc", 0, 1), entry("abcd", memory_type=MemoryType.EPISODIC)])
    await store.set_retention(tenant, MemoryType.SEMANTIC, max_memories=9, max_days=3)
    await store.set_retention(tenant, MemoryType.LONG_TERM, max_memories=1, max_days=0)
    found = [
        (one.memory_type.value, one.memories, one.characters, one.max_memories) for one in await store.usage(tenant)
    ]
    assert found == [("episodic", 1, 4, 0), ("long_term", 0, 0, 1), ("semantic", 2, 5, 9)]


async def test_the_least_important_go_first_then_the_longest_unasked(store: Any, tenant: str) -> None:
    dear, old, asked = await store.add(
        tenant,
        [entry("dear", importance=0.9), entry("old", 0, 1), entry("asked", 1, 1, created_at=NOW - timedelta(days=9))],
    )
    await store.used(tenant, [asked.place], now=NOW + timedelta(days=1))
    await store.used(tenant, [asked.place, asked.place], now=NOW + timedelta(days=2))
    found = await store.least(tenant, MemoryType.SEMANTIC, limit=5)
    assert [one.id for one in found] == [old.id, asked.id, dear.id]


async def test_what_has_ended_is_there_to_be_pruned(store: Any, tenant: str) -> None:
    ended, _ = await store.add(tenant, [entry("ended", expires_at=NOW), entry("lasting", 0, 1)])
    assert await store.ended(tenant, before=NOW, limit=5) == [ended]
    assert await store.ended(tenant, before=NOW - timedelta(seconds=1), limit=5) == []


async def test_vectors_of_another_model_are_told_and_moved_between_widths(store: Any, tenant: str) -> None:
    old, given = await store.add(tenant, [entry("old", embedding_model="a"), entry("given", 0, 1)])
    assert await store.outdated(tenant, "b", reads=False, limit=5) == ([old], 1)
    renewed = old._replace(embedding_model="b")
    await store.change(tenant, Entry(renewed, (1.0, *[0.0] * 1535)), before=old)
    near = await store.nearest(tenant, (1.0, *[0.0] * 1535), Filter(), now=NOW, limit=5)
    assert [one.memory.id for one in near] == [old.id]
    assert await store.outdated(tenant, "b", reads=False, limit=5) == ([], 0)
    assert [one.memory.id for one in await store.nearest(tenant, vector(1), Filter(), now=NOW, limit=5)] == [given.id]


def _wide(width: int, *start: float) -> tuple[float, ...]:
    return (*start, *[0.0] * (width - len(start)))


@pytest.mark.parametrize("store", ["memory", "postgres", "faiss"], indirect=True)
@pytest.mark.parametrize("width", [256, 768, 1024, 3072, 4096])
async def test_whatever_width_a_model_makes_is_kept_as_it_is_and_searched(store: Any, tenant: str, width: int) -> None:
    near, far = Entry(memory("near"), _wide(width, 1, 0.1)), Entry(memory("far"), _wide(width, 0, 1))
    kept, _ = await store.add(tenant, [near, far])
    await store.add(tenant, [entry("of another width")])
    gathered = await store.gather(tenant, Probe(_wide(width, 1), ("far",), 1, 0), Filter(), now=NOW)
    found = await store.nearest(tenant, _wide(width, 1), Filter(), now=NOW, limit=5)
    assert [one.memory.content for one in found] == ["near", "far"]
    assert {one.memory.content: one.cosine > 0.9 for one in gathered.pool} == {"near": True, "far": False}
    assert await store.vector(tenant, kept.id) == pytest.approx(_wide(width, 1, 0.1), abs=1e-3)
    assert await store.forget(tenant, [kept], []) == 1
    assert [one.memory.content for one in await store.nearest(tenant, _wide(width, 1), Filter(), now=NOW, limit=5)] == [
        "far"
    ]


async def test_vectors_of_another_model_are_never_compared(store: Any, tenant: str) -> None:
    many = [entry("old", embedding_model="a"), entry("new", 0.5, 1, embedding_model="b"), entry("given", 0.2, 1)]
    await store.add(tenant, many)
    found = await store.nearest(tenant, vector(1), Filter(), now=NOW, limit=5, model="b")
    gathered = await store.gather(tenant, Probe(vector(1), ("old",), 5, 0, "b"), Filter(), now=NOW)
    assert [one.memory.content for one in found] == ["new", "given"]
    assert {one.memory.content: one.cosine > 0.1 for one in gathered.pool} == {"old": False, "new": True, "given": True}


@pytest.mark.parametrize("width", [384, 768])
async def test_a_new_vector_changes_nothing_else_of_a_memory(store: Any, tenant: str, width: int) -> None:
    (old,) = await store.add(tenant, [entry("harbour at night", embedding_model="a", tags=("sea",), importance=0.9)])
    before = await store.usage(tenant)
    renewed = old._replace(embedding_model="b", importance=0.1, tags=())
    assert await store.revector(tenant, [Entry(renewed, _wide(width, 0, 1))]) == 1
    (near,) = await store.nearest(tenant, _wide(width, 0, 1), Filter(tags=("sea",)), now=NOW, limit=5, model="b")
    worded = await store.gather(tenant, Probe((), ("harbour",), 5, 0), Filter(), now=NOW)
    assert near.memory == old._replace(embedding_model="b")
    assert [one.memory for one in worded.pool] == [near.memory]
    assert await store.usage(tenant) == before
    assert await store.outdated(tenant, "b", reads=False, limit=5) == ([], 0)


async def test_a_new_vector_comes_too_late_for_what_was_changed_meanwhile(store: Any, tenant: str) -> None:
    (read, gone) = await store.add(
        tenant, [entry("copper", embedding_model="a"), entry("tin", 0, 1, embedding_model="a")]
    )
    changed = read._replace(content="silver", content_hash=b"silver", updated_at=NOW)
    await store.change(tenant, Entry(changed, vector(0, 1)), before=read)
    await store.forget(tenant, [gone], [])
    late = [Entry(one._replace(embedding_model="b"), vector(1)) for one in (read, gone)]
    assert await store.revector(tenant, late) == 0
    assert await store.find(tenant, read.id, now=NOW) == changed
    assert await store.vector(tenant, read.id) == vector(0, 1)


async def test_the_same_content_is_stored_once_also_when_the_model_has_changed(store: Any, tenant: str) -> None:
    (first,) = await store.add(tenant, [entry("once")])
    (again,) = await store.add(tenant, [Entry(memory("once"), _wide(768, 1))])
    assert again.id == first.id
    assert sum(one.memories for one in await store.usage(tenant)) == 1


@pytest.mark.parametrize("tag", ['say "x"', "back\\slash", "{a,b}", "NULL", "naïve café", "a,b", " "])
async def test_a_tag_may_hold_any_character(store: Any, tenant: str, tag: str) -> None:
    (kept, _) = await store.add(tenant, [entry("null, with it", tags=(tag, "x")), entry("without", 0, 1)])
    found = await store.nearest(tenant, vector(1), Filter(tags=(tag,)), now=NOW, limit=5)
    assert [one.memory.id for one in found] == [kept.id]
    assert found[0].memory.tags == (tag, "x")
    gathered = await store.gather(tenant, Probe((), ("null",), 5, 0), Filter(), now=NOW)
    assert gathered.corpus.holding == {"null": 1}
    assert await store.forget(tenant, [kept], []) == 1
    assert await store.nearest(tenant, vector(1), Filter(tags=(tag,)), now=NOW, limit=5) == []


async def test_similar_words_begin_alike(store: Any, tenant: str) -> None:
    await store.add(tenant, [entry("kubernetes kube cluster kuwait"), entry("kudos", 0, 1)])
    assert await store.similar_words(tenant, "kubrenetes") == ["kube", "kubernet", "kudo", "kuwait"]
    assert await store.similar_words(tenant, "k") == []


def calm() -> bool:
    return False


@pytest.mark.parametrize("store", ["postgres"], indirect=True)
async def test_while_a_bulk_goes_on_the_graph_lags_only_so_far_and_search_is_whole(
    store: Any, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.memory.store_postgres._FRESH", 5)
    monkeypatch.setattr("services.memory.store_postgres._LATE", 30)
    monkeypatch.setattr("services.memory.store_postgres._TENDED", 10)
    await store.add(tenant, [entry(f"first {n}", 1, n / 10) for n in range(30)])
    assert await store.tend(tenant, busy=lambda: True) == 0
    await store.add(tenant, [entry(f"second {n}", 1, n / 10 + 0.05) for n in range(15)])
    assert await store.tend(tenant, busy=lambda: True) == 20
    found = await store.nearest(tenant, vector(1), Filter(), now=NOW, limit=4)
    assert [one.memory.content for one in found] == ["first 0", "second 0", "first 1", "second 1"]
    bulk = chain([False], repeat(True))
    assert await store.tend(tenant, busy=lambda: next(bulk)) == 10
    assert await store.tend(tenant, busy=calm) == 15
    assert await store.tend(tenant, busy=calm) == 0


@pytest.mark.parametrize("store", ["postgres"], indirect=True)
async def test_search_is_whole_before_while_and_after_memories_join_the_graph(
    store: Any, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.memory.store_postgres._FRESH", 20)
    await store.add(tenant, [entry(f"first {n}", 1, n / 10) for n in range(20)])
    assert await store.tend(tenant, busy=calm) == 0
    await store.add(tenant, [entry(f"second {n}", 1, n / 10 + 0.05, tags=("late",)) for n in range(20)])
    assert await store.tend(tenant, busy=calm) == 40
    await store.add(tenant, [entry(f"third {n}", 1, n / 10 + 0.02) for n in range(10)])
    found = await store.nearest(tenant, vector(1), Filter(), now=NOW, limit=6)
    narrow = await store.nearest(tenant, vector(1), Filter(tags=("late",)), now=NOW, limit=30)
    assert [one.memory.content for one in found] == ["first 0", "third 0", "second 0", "first 1", "third 1", "second 1"]
    assert len(narrow) == 20
    assert await store.nearest("another", vector(1), Filter(), now=NOW, limit=6) == []


async def test_what_has_ended_makes_room_for_the_same_content(store: Any, tenant: str) -> None:
    hour = timedelta(hours=1)
    (old, stays, _) = await store.add(
        tenant,
        [
            entry("code", expires_at=NOW - hour), entry("door", 0, 1, expires_at=NOW + hour),
            entry("window", expires_at=NOW - hour),
        ],
    )  # fmt: skip
    again, other, twice = await store.add(tenant, [entry("code"), entry("door", 1, 1), entry("code")], now=NOW)
    assert again.id == twice.id != old.id
    assert other == stays
    assert await store.find(tenant, old.id, now=NOW - 2 * hour) is None
    found = await store.nearest(tenant, vector(1), Filter(), now=NOW, limit=5)
    assert [one.memory.id for one in found] == [again.id, stays.id]
    assert [(one.memories, one.characters) for one in await store.usage(tenant)] == [(3, 14)]
    assert tenant in await store.tenants()


async def test_a_change_to_what_has_ended_is_no_clash(store: Any, tenant: str) -> None:
    ended, mine = await store.add(tenant, [entry("code", expires_at=NOW), entry("door", 0, 1)])
    changed = mine._replace(content="code", content_hash=ended.content_hash, updated_at=NOW)
    assert await store.change(tenant, Entry(changed, vector(1)), before=mine) == changed
    found = await store.nearest(tenant, vector(1), Filter(as_of=NOW - timedelta(days=1)), now=NOW, limit=5)
    assert [one.memory for one in await store.nearest(tenant, vector(1), Filter(), now=NOW, limit=5)] == [changed]
    assert found == []
