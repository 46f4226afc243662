"""One suite for both stores of facts."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from services.memory.bounds import Kept
from services.memory.fact_store import Fact, FactFilter
from services.memory.fact_store_postgres import PostgresFactStore
from services.memory.store import Receipt
from services.memory.store_postgres import PostgresMemoryStore
from shared.ids import RandomIds
from shared.paging import Page
from shared.postgres import Database
from tests.support.forged import NUMBERS, refused
from tests.support.memory import NOW

YEAR = timedelta(days=365)


def fact(subject: str, relation: str, value: str, since: datetime = NOW, **more: Any) -> Fact:
    several = more.pop("several", False)
    return Fact(RandomIds().new("fct"), subject, relation, value, several, since, more.pop("recorded_at", NOW), **more)


async def objects(store: Any, tenant: str, chosen: FactFilter) -> list[str]:
    return [one.object for one in await store.every(tenant, chosen, Page())]


async def test_a_new_fact_ends_the_one_before_and_both_stay(facts: Any, tenant: str) -> None:
    ((turin,),) = [await facts.record(tenant, [fact("ada", "lives_in", "Turin", NOW - 2 * YEAR)])]
    (milan,) = await facts.record(tenant, [fact("ada", "lives_in", "Milan", NOW - YEAR)])
    (ended,) = milan.superseded
    assert (ended.id, ended.valid_to, ended.superseded_by) == (turin.fact.id, NOW - YEAR, milan.fact.id)
    assert await objects(facts, tenant, FactFilter("ada", valid_at=NOW)) == ["Milan"]
    assert await objects(facts, tenant, FactFilter("ada", valid_at=NOW - 1.5 * YEAR)) == ["Turin"]
    assert await objects(facts, tenant, FactFilter("ada")) == ["Milan", "Turin"]


async def test_what_the_mesh_knew_then_is_told_as_it_knew_it(facts: Any, tenant: str) -> None:
    await facts.record(tenant, [fact("ada", "lives_in", "Turin", NOW - 3 * YEAR, recorded_at=NOW - 3 * YEAR)])
    await facts.record(tenant, [fact("ada", "lives_in", "Milan", NOW - 2 * YEAR, recorded_at=NOW)])
    then = FactFilter("ada", valid_at=NOW - YEAR, as_of=NOW - YEAR)
    assert await objects(facts, tenant, then) == ["Turin"]
    assert await objects(facts, tenant, FactFilter("ada", valid_at=NOW - YEAR)) == ["Milan"]


async def test_the_same_fact_is_recorded_once(facts: Any, tenant: str) -> None:
    (first,) = await facts.record(tenant, [fact("ada", "knows", "Go", NOW - YEAR)])
    again, other = await facts.record(
        tenant, [fact("ada", "knows", "Go"), fact("ada", "knows", "Rust", several=True)]
    )  # fmt: skip
    assert again.fact.id == first.fact.id
    assert other.superseded == []
    assert sorted(await objects(facts, tenant, FactFilter("ada", "knows", valid_at=NOW))) == ["Go", "Rust"]


async def test_a_fact_told_late_holds_until_the_one_that_followed(facts: Any, tenant: str) -> None:
    await facts.record(tenant, [fact("ada", "lives_in", "Turin", NOW)])
    (oslo,) = await facts.record(tenant, [fact("ada", "lives_in", "Oslo", NOW - YEAR)])
    assert oslo.fact.valid_to == NOW
    assert await objects(facts, tenant, FactFilter("ada", valid_at=NOW)) == ["Turin"]


async def test_an_ended_fact_stays_as_history(facts: Any, tenant: str) -> None:
    (kept,) = await facts.record(tenant, [fact("ada", "likes", "tea", NOW - YEAR)])
    ended = await facts.end(tenant, kept.fact.id, valid_to=NOW, now=NOW)
    again = await facts.end(tenant, kept.fact.id, valid_to=NOW + YEAR, now=NOW + YEAR)
    assert (ended.valid_to, again) == (NOW, ended)
    assert await objects(facts, tenant, FactFilter("ada", valid_at=NOW)) == []
    assert await objects(facts, tenant, FactFilter("ada")) == ["tea"]
    assert await facts.end(tenant, "fct_none", valid_to=NOW, now=NOW) is None
    assert await facts.find("another", kept.fact.id) is None


async def test_facts_are_found_from_both_ends(facts: Any, tenant: str) -> None:
    many = [fact("ada", "works_at", "Acme"), fact("Acme", "based_in", "Oslo"), fact("bob", "works_at", "Acme")]
    await facts.record(tenant, many)
    found = await facts.touching(tenant, ["Acme"], valid_at=NOW, limit=9)
    assert [one.subject for one in found] == ["ada", "Acme", "bob"]
    assert await facts.touching("another", ["Acme"], valid_at=NOW, limit=9) == []


async def test_forgotten_facts_leave_no_history(facts: Any, tenant: str) -> None:
    (one,) = await facts.record(tenant, [fact("ada", "likes", "tea")])
    receipt = Receipt("rct_1", one.fact.id, b"hash", "ada", NOW)
    assert await facts.forget("another", [one.fact], []) == 0
    assert await facts.forget(tenant, [one.fact], [receipt]) == 1
    assert await facts.every(tenant, FactFilter("ada"), Page()) == []


async def test_lists_of_facts_page_from_the_newest(facts: Any, tenant: str) -> None:
    await facts.record(tenant, [fact("ada", "knows", str(n), several=True) for n in range(3)])
    first = await facts.every(tenant, FactFilter("ada"), Page(2))
    rest = await facts.every(tenant, FactFilter("ada"), Page(2, (str(first[1].place),)))
    assert [one.object for one in (*first[:2], *rest)] == ["2", "1", "0"]
    await refused(lambda page: facts.every(tenant, FactFilter("ada"), page), NUMBERS)


async def test_what_was_closed_twice_is_told_as_it_was_known_each_time(facts: Any, tenant: str) -> None:
    times = [NOW - 3 * YEAR, NOW - 2 * YEAR, NOW - YEAR]
    for place, since, at in zip(("Turin", "Milan", "Oslo"), (-9, -3, -6), times, strict=True):
        await facts.record(tenant, [fact("ada", "lives_in", place, NOW + since * YEAR, recorded_at=at)])

    async def told(valid: int, known: float | None = None) -> list[str]:
        as_of = NOW + known * YEAR if known else None
        return await objects(facts, tenant, FactFilter("ada", valid_at=NOW + valid * YEAR, as_of=as_of))

    assert [await told(valid) for valid in (-8, -5, -1)] == [["Turin"], ["Oslo"], ["Milan"]]
    assert [await told(valid, -1.5) for valid in (-8, -5, -1)] == [["Turin"], ["Turin"], ["Milan"]]
    assert [await told(valid, -2.5) for valid in (-8, -5, -1)] == [["Turin"], ["Turin"], ["Turin"]]


async def test_a_fact_is_shown_as_it_was_known_then(facts: Any, tenant: str) -> None:
    times = [NOW - 3 * YEAR, NOW - 2 * YEAR, NOW - YEAR]
    ids = []
    for place, since, at in zip(("Turin", "Milan", "Oslo"), (-9, -3, -6), times, strict=True):
        (kept,) = await facts.record(tenant, [fact("ada", "lives_in", place, NOW + since * YEAR, recorded_at=at)])
        ids.append(kept.fact.id)

    async def turin(as_of: datetime | None) -> tuple[datetime | None, datetime | None, str]:
        (shown,) = await facts.every(tenant, FactFilter("ada", object="Turin", as_of=as_of), Page())
        return shown.valid_to, shown.ended_at, shown.superseded_by

    assert await turin(NOW - 2.5 * YEAR) == (None, None, "")
    assert await turin(NOW - 1.5 * YEAR) == (NOW - 3 * YEAR, times[1], ids[1])
    assert await turin(None) == await turin(NOW) == (NOW - 6 * YEAR, times[2], ids[2])


async def test_an_end_that_was_planned_is_told_as_it_was_planned(facts: Any, tenant: str) -> None:
    planned = fact("ada", "rents", "a flat", NOW - 3 * YEAR, recorded_at=NOW - 3 * YEAR, valid_to=NOW + YEAR)
    await facts.record(tenant, [planned])
    ended = await facts.end(tenant, planned.id, valid_to=NOW - YEAR, now=NOW)
    later = FactFilter("ada", valid_at=NOW + 2 * YEAR, as_of=NOW - YEAR)
    assert ended.valid_to == NOW - YEAR
    assert await objects(facts, tenant, later) == []
    assert await objects(facts, tenant, FactFilter("ada", valid_at=NOW, as_of=NOW - YEAR)) == ["a flat"]
    assert await objects(facts, tenant, FactFilter("ada", valid_at=NOW)) == []


async def test_to_end_a_fact_never_makes_it_last_longer(facts: Any, tenant: str) -> None:
    (turin,) = await facts.record(tenant, [fact("ada", "lives_in", "Turin", NOW - YEAR, valid_to=NOW)])
    again = await facts.end(tenant, turin.fact.id, valid_to=NOW + YEAR, now=NOW + YEAR)
    assert again == turin.fact


async def lives(facts: Any, tenant: str, *homes: tuple[str, int]) -> None:
    """Each told when it began, so many years ago; the last one holds."""
    for home, years in homes:
        told = NOW - years * YEAR
        await facts.record(tenant, [fact("ada", "lives_in", home, told, recorded_at=told)])


async def test_what_is_old_and_what_has_ended_for_long_is_known(facts: Any, tenant: str) -> None:
    await lives(facts, tenant, ("Turin", 9), ("Milan", 6), ("Oslo", 2))

    async def outlived(years: int, *, ended: bool, limit: int = 9) -> list[str]:
        ended_by = NOW if ended else None
        found = await facts.outlived(tenant, before=NOW - years * YEAR, ended_by=ended_by, limit=limit)
        return [one.object for one in found]

    assert await outlived(5, ended=False) == ["Turin", "Milan"]
    assert await outlived(1, ended=False, limit=1) == ["Turin"]
    assert await outlived(5, ended=True) == ["Turin"]
    assert await outlived(1, ended=True) == ["Turin", "Milan"]
    assert await facts.kept(tenant, ended_by=None) == Kept(3, NOW - 9 * YEAR)
    assert await facts.kept(tenant, ended_by=NOW) == Kept(2, NOW - 9 * YEAR)
    assert await facts.kept("another", ended_by=None) == Kept(0, None)


async def test_what_the_mesh_learned_of_late_is_not_long_ended(facts: Any, tenant: str) -> None:
    told = fact("ada", "lives_in", "Turin", NOW - 9 * YEAR, recorded_at=NOW, valid_to=NOW - 5 * YEAR)
    await facts.record(tenant, [told])
    assert await facts.outlived(tenant, before=NOW - YEAR, ended_by=NOW, limit=9) == []


async def test_ended_facts_make_room_first(facts: Any, tenant: str) -> None:
    await facts.record(tenant, [fact("bob", "lives_in", "Lima", NOW - 9 * YEAR, recorded_at=NOW - 9 * YEAR)])
    await lives(facts, tenant, ("Turin", 7), ("Milan", 6), ("Oslo", 2))

    async def surplus(at_most: int, *, ended: bool = False, limit: int = 9) -> list[str]:
        ended_by = NOW if ended else None
        found = await facts.surplus(tenant, at_most=at_most, ended_by=ended_by, now=NOW, limit=limit)
        return [one.object for one in found]

    assert await surplus(1) == ["Turin", "Milan", "Lima"]
    assert await surplus(1, limit=2) == ["Turin", "Milan"]
    assert await surplus(1, ended=True) == ["Turin"]
    assert await surplus(4) == []


async def test_who_only_recorded_facts_is_known_by_name(database: Database, tenant: str) -> None:
    store = PostgresMemoryStore(database)
    assert tenant not in await store.tenants()
    await PostgresFactStore(database).record(tenant, [fact("ada", "knows", "Go")])
    assert tenant in await store.tenants()
