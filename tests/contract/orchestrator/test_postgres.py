"""What only Postgres can promise: the chain over the log, who may change it, and who sees what."""

from __future__ import annotations

import asyncio
import hmac
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from deploy.local.postgres import Cluster
from services.orchestrator.chain import START, macs
from services.orchestrator.leases_postgres import Renewal
from services.orchestrator.store import Entry
from services.orchestrator.store_postgres import SQL
from tests.contract.orchestrator.conftest import LOG_KEY, Stores
from tests.contract.orchestrator.test_sessions import claimed, session, start

pytestmark = pytest.mark.parametrize("stores", ["postgres"], indirect=True)


async def test_each_event_carries_a_keyed_hash_of_its_predecessor(stores: Stores, admin: Any) -> None:
    await start(stores)
    lease = await claimed(stores)
    await stores.sessions.append(lease, [Entry(2, "x", b"two"), Entry(3, "x", b"three")], session=session())
    await stores.sessions.append(lease, [Entry(4, "x", b"four")], session=session())

    rows = await admin.fetch("select payload, mac from orchestrator.event order by sequence")

    assert [row["mac"] for row in rows] == list(macs(LOG_KEY, START, [row["payload"] for row in rows]))


def test_the_chain_tells_an_edit_a_swap_and_a_cut(stores: Stores) -> None:
    honest = list(macs(LOG_KEY, START, [b"one", b"two", b"three"]))
    for forged in ([b"one", b"tWo", b"three"], [b"two", b"one", b"three"], [b"one", b"three"]):
        assert list(macs(LOG_KEY, START, forged))[-1] != honest[-1]
    assert not hmac.compare_digest(next(macs(b"another key", START, [b"one"])), honest[0])


async def test_the_service_itself_cannot_change_or_delete_its_log(stores: Stores, postgres: Cluster) -> None:
    await start(stores)
    own = await asyncpg.connect(postgres.dsn("orchestrator"))
    try:
        for statement in ("update event set payload = ''", "delete from event", "truncate event"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await own.execute(statement)
    finally:
        await own.close()


async def test_without_a_tenant_the_service_sees_nothing(stores: Stores, postgres: Cluster) -> None:
    await start(stores)
    own = await asyncpg.connect(postgres.dsn("orchestrator"))
    try:
        for table in ("agent", "session", "turn", "task_graph", "event", "signal", "session_lease"):
            assert await own.fetchval(f"select count(*) from {table}") == 0
    finally:
        await own.close()


async def test_the_driver_sees_leases_of_all_tenants_and_no_content(stores: Stores, postgres: Cluster) -> None:
    await start(stores)
    driver = await asyncpg.connect(postgres.dsn("orchestrator_driver"))
    try:
        assert await driver.fetchval("select count(*) from session_lease") == 1
        for table in ("agent", "session", "turn", "event", "signal"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await driver.fetch(f"select * from {table}")
    finally:
        await driver.close()


async def test_many_claimers_share_without_taking_one_twice(stores: Stores) -> None:
    for place in range(12):
        await start(stores, session(f"ses_{place}"))

    claims = await asyncio.gather(
        *(stores.leases.claim(f"owner_{place}", ttl=stores.ttl, limit=3) for place in range(6))
    )

    taken = [lease.session_id for leases in claims for lease in leases]
    assert len(taken) == len(set(taken))


async def test_a_takeover_waits_for_the_write_in_flight(stores: Stores, admin: Any) -> None:
    await start(stores)
    (lease,) = await stores.leases.claim("one", ttl=stores.ttl / 100, limit=1)
    blocker = admin.transaction()
    await blocker.start()
    await admin.execute("select from orchestrator.session where id = 'ses_1' for update")
    writing = asyncio.create_task(stores.sessions.append(lease, [Entry(2, "x", b"x")], session=session()))
    while not await admin.fetchval("select expires_at < clock_timestamp() from orchestrator.session_lease"):
        await asyncio.sleep(0.02)

    early = await stores.leases.claim("two", ttl=stores.ttl, limit=1)
    await blocker.rollback()
    await writing
    (late,) = await stores.leases.claim("two", ttl=stores.ttl, limit=1)

    assert early == []
    assert late.takeovers == 1
    assert len(await stores.sessions.read("acme", "ses_1", 0, limit=9)) == 2


async def test_a_thread_renews_what_is_driven_and_lets_the_rest_run_out(
    stores: Stores, admin: Any, postgres: Cluster
) -> None:
    for place in range(2):
        await start(stores, session(f"ses_{place}"))
    ttl = stores.ttl / 50
    await stores.leases.claim("one", ttl=ttl, limit=2)

    with Renewal(postgres.dsn("orchestrator_driver"), "one", ttl=ttl, driven=lambda: ["ses_0"]) as renewal:
        while await admin.fetchval("select count(*) from orchestrator.session_lease where expires_at > now()") == 2:
            await asyncio.sleep(0.02)
        rows = await admin.fetch("select session_id from orchestrator.session_lease where expires_at > now()")
        age = renewal.age

    assert [row["session_id"] for row in rows] == ["ses_0"]
    assert age < ttl


async def test_renewals_that_are_slow_and_not_late_keep_what_is_driven(
    stores: Stores, postgres: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many rows that appends have locked take their time."""
    slow = "select pg_sleep(1.2), $1::text, $2::interval, $3::text[]"
    monkeypatch.setitem(SQL, "renew", slow)
    ttl, oldest = timedelta(seconds=4), timedelta()
    with Renewal(postgres.dsn("orchestrator_driver"), "one", ttl=ttl, driven=list) as renewal:
        for _ in range(50):
            await asyncio.sleep(0.1)
            oldest = max(oldest, renewal.age)
    assert oldest < ttl


async def test_a_renewal_that_cannot_reach_postgres_grows_old(stores: Stores) -> None:
    nowhere = "postgresql://nobody@127.0.0.1:1/none"
    with Renewal(nowhere, "one", ttl=stores.ttl / 300, driven=list) as renewal:
        await asyncio.sleep(0.25)
        assert renewal.age > stores.ttl / 300
