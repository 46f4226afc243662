"""One suite for both stores of receipts."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from services.memory.receipts import ReceiptFilter
from services.memory.store import Receipt
from shared.paging import Page
from tests.support.forged import PLACES, refused
from tests.support.memory import NOW, entry


@pytest.fixture(params=["memory", "postgres"])
def store(request: pytest.FixtureRequest, store: Any) -> Any:
    return store


async def forget(store: Any, tenant: str, *whose: str) -> list[Receipt]:
    """One after the other, each by somebody; the receipts in that order."""
    many = await store.add(tenant, [entry(f"number {at}") for at in range(len(whose))])
    made = []
    for at, (memory, by) in enumerate(zip(many, whose, strict=True)):
        made.append(Receipt(f"{tenant}-{at}", memory.id, memory.content_hash, by, NOW + timedelta(hours=at // 2)))
        await store.forget(tenant, [memory], made[-1:])
    return made


async def test_receipts_are_listed_the_last_first_and_by_what_and_by_whom(
    store: Any, receipts: Any, tenant: str
) -> None:
    made = await forget(store, tenant, "ada", "retention", "ada", "bob")
    assert list(await receipts.every(tenant, ReceiptFilter(), Page())) == made[::-1]
    assert list(await receipts.every(tenant, ReceiptFilter(requested_by="ada"), Page())) == [made[2], made[0]]
    one = ReceiptFilter(subject_id=made[1].subject_id)
    assert list(await receipts.every(tenant, one, Page())) == [made[1]]
    assert list(await receipts.every("another", ReceiptFilter(), Page())) == []
    assert await receipts.find("another", made[0].id) is None


async def test_lists_of_receipts_page(store: Any, receipts: Any, tenant: str) -> None:
    made = await forget(store, tenant, "ada", "ada", "ada")
    first = await receipts.every(tenant, ReceiptFilter(), Page(2))
    cursor = (first[1].deleted_at.isoformat(), first[1].id)
    assert [*first[:2], *await receipts.every(tenant, ReceiptFilter(), Page(2, cursor))] == made[::-1]
    await refused(lambda page: receipts.every(tenant, ReceiptFilter(), page), PLACES)


async def test_who_deletes_what_another_has_deleted_meanwhile_gets_no_proof_of_it(
    store: Any, receipts: Any, tenant: str
) -> None:
    gone, going = await store.add(tenant, [entry("one"), entry("two")])
    await store.forget(tenant, [gone], [])
    proofs = [Receipt(f"{tenant}-{one.id}", one.id, one.content_hash, "ada", NOW) for one in (gone, going)]
    assert set(await store.forget(tenant, [gone, going], proofs)) == {going.id}
    assert list(await receipts.every(tenant, ReceiptFilter(), Page())) == proofs[1:]
