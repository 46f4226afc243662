"""What the queue's worker may rely on, whichever store it has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import asyncpg
import pytest

from services.inference.queue.store import Claim, Depth, QueueStore
from services.inference.queue.store_memory import MemoryQueueStore
from services.inference.queue.store_postgres import PostgresQueueStore
from shared.clock import SystemClock
from shared.identity import CredentialKind, Principal
from shared.paging import Page
from shared.postgres import open_database
from tests.support.forged import PLACES, refused

LONG, SHORT, AT_ONCE = timedelta(seconds=30), timedelta(milliseconds=60), timedelta()


@pytest.fixture(params=["memory", "postgres"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[QueueStore]:
    if request.param == "memory":
        yield MemoryQueueStore(SystemClock())
        return
    async with open_database(request.getfixturevalue("postgres").dsn("inference"), pool=2) as database:
        async with database.transaction() as connection:
            await connection.execute("delete from generation_queue")
        yield PostgresQueueStore(database)


def somebody(tenant: str = "") -> Principal:
    return Principal(tenant or f"tenant-{uuid4()}", "ada", frozenset({"tenant_user"}), CredentialKind.API_KEY)


async def claimed(store: QueueStore, owner: str, lease: timedelta = LONG) -> Claim:
    (claim,) = await store.claim(owner, lease=lease, most=1)
    return claim


async def test_work_is_given_to_one_with_all_that_was_asked(store: QueueStore) -> None:
    ada = somebody()
    await store.submit(ada, "gen_1", b"asked")
    await store.submit(ada, "gen_1", b"something else")
    claim = await claimed(store, "a")
    assert await store.claim("b", lease=LONG, most=5) == []
    work = await store.begin(claim)
    assert work
    assert (work.principal, work.request, work.run) == (ada, b"asked", 1)
    found = await store.find(ada.tenant_id, "gen_1")
    assert found
    assert (found.running, found.runs, found.succeeded) == (True, 1, None)


async def test_what_came_of_it_is_written_once(store: QueueStore) -> None:
    ada = somebody()
    await store.submit(ada, "gen_1", b"asked")
    claim = await claimed(store, "a")
    assert await store.end(claim, succeeded=True, outcome=b"said")
    assert not await store.end(claim, succeeded=False, outcome=b"no")
    found = await store.find(ada.tenant_id, "gen_1")
    assert found
    assert (found.succeeded, found.outcome, found.running, found.ended_at is None) == (True, b"said", False, False)
    await store.submit(ada, "gen_1", b"again")
    assert await store.claim("b", lease=LONG, most=5) == []


async def test_whose_lease_has_ended_writes_nothing_and_another_goes_on(store: QueueStore) -> None:
    ada = somebody()
    await store.submit(ada, "gen_1", b"asked")
    dead = await claimed(store, "a", SHORT)
    assert await store.begin(dead)
    await asyncio.sleep(0.1)
    heir = await claimed(store, "b")
    assert heir.fence > dead.fence
    assert not await store.end(dead, succeeded=True, outcome=b"too late")
    assert await store.begin(dead) is None
    assert await store.renew("a", [dead], lease=LONG) == []
    await store.again(dead, after=AT_ONCE)
    work = await store.begin(heir)
    assert work
    assert work.run == 2
    assert await store.end(heir, succeeded=True, outcome=b"said")


async def test_a_renewed_lease_holds(store: QueueStore) -> None:
    await store.submit(somebody(), "gen_1", b"asked")
    claim = await claimed(store, "a", timedelta(milliseconds=400))  # renewed in time on a busy machine too
    assert await store.renew("a", [claim], lease=LONG) == [claim]
    await asyncio.sleep(0.45)
    assert await store.claim("b", lease=LONG, most=5) == []


async def test_what_is_given_back_waits_its_time(store: QueueStore) -> None:
    await store.submit(somebody(), "gen_1", b"asked")
    await store.again(await claimed(store, "a"), after=timedelta(milliseconds=60))
    assert await store.claim("b", lease=LONG, most=5) == []
    await asyncio.sleep(0.1)
    assert (await claimed(store, "b")).owner == "b"


async def test_what_waits_can_be_withdrawn_and_what_runs_cannot(store: QueueStore) -> None:
    ada = somebody()
    for name in ("gen_1", "gen_2"):
        await store.submit(ada, name, b"asked")
    claim = await claimed(store, "a")
    other = "gen_2" if claim.id == "gen_1" else "gen_1"
    assert not await store.withdraw(ada.tenant_id, claim.id, b"off")
    assert await store.withdraw(ada.tenant_id, other, b"off")
    assert not await store.withdraw(ada.tenant_id, other, b"off")
    assert await store.claim("b", lease=LONG, most=5) == []


async def test_a_tenant_with_much_work_does_not_keep_others_waiting(store: QueueStore) -> None:
    busy, modest = somebody(), somebody()
    for place in range(5):
        await store.submit(busy, f"gen_{place}", b"asked")
    await store.submit(modest, "gen_9", b"asked")
    taken = await store.claim("a", lease=LONG, most=2)
    assert {claim.tenant for claim in taken} == {busy.tenant_id, modest.tenant_id}


async def test_other_tenants_see_nothing(store: QueueStore) -> None:
    await store.submit(somebody(), "gen_1", b"asked")
    assert await store.find("another", "gen_1") is None
    assert not await store.withdraw("another", "gen_1", b"off")
    await claimed(store, "a")


async def test_the_queue_holds_nothing_of_a_tenants_content(postgres: object) -> None:
    connection = await asyncpg.connect(postgres.dsn("inference"))  # type: ignore[attr-defined]
    try:
        assert await connection.fetchval("select count(*) from submitted_generation") == 0
        columns = await connection.fetch(
            "select column_name from information_schema.columns where table_name = 'generation_queue'"
        )
    finally:
        await connection.close()
    assert {row["column_name"] for row in columns} == {"tenant_id", "id", "owner", "fence", "expires_at", "ready_at"}


async def test_lists_are_the_newest_first_by_pages_and_of_one_tenant(store: QueueStore) -> None:
    ada, other = somebody(), somebody()
    await store.submit(other, "gen_0", b"asked")
    for name in ("gen_1", "gen_2", "gen_3"):
        await store.submit(ada, name, b"asked")
        await asyncio.sleep(0.002)
    await store.withdraw(ada.tenant_id, "gen_2", b"failure")
    first = await store.list(ada.tenant_id, Page(2), still_open=False)
    assert [one.id for one in first] == ["gen_3", "gen_2", "gen_1"]
    assert [(one.succeeded, one.outcome, bool(one.ended_at)) for one in first[:2]] == [
        (None, b"", False),
        (False, b"", True),
    ]
    rest = await store.list(ada.tenant_id, Page(2, first[1].place), still_open=False)
    assert [one.id for one in rest] == ["gen_1"]
    assert [one.id for one in await store.list(ada.tenant_id, Page(), still_open=True)] == ["gen_3", "gen_1"]
    await refused(lambda page: store.list(ada.tenant_id, page, still_open=False), PLACES)


async def test_depth_counts_what_waits_and_what_is_run_of_all_tenants(store: QueueStore) -> None:
    assert await store.depth() == Depth()
    for tenant in (somebody(), somebody(), somebody()):
        await store.submit(tenant, "gen_1", b"asked")
    await claimed(store, "a")
    await asyncio.sleep(0.01)
    depth = await store.depth()
    assert (depth.waiting, depth.running) == (2, 1)
    assert timedelta(milliseconds=10) <= depth.oldest < timedelta(minutes=1)
