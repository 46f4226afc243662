"""Many runs at once: what goes to Postgres together holds for each run as if it went alone."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from agentnet.orchestrator.v1 import session_pb2
from services.orchestrator.chain import START, macs
from services.orchestrator.errors import LeaseLost
from services.orchestrator.store import Entry, Lease, Signal
from tests.contract.orchestrator.conftest import LOG_KEY, Stores
from tests.contract.orchestrator.test_sessions import ADA, session

TENANTS = ("acme", "other", "third")
BUSY = [(tenant, f"ses_{place}") for tenant in TENANTS for place in range(8)]


async def started(stores: Stores) -> dict[tuple[str, str], Lease]:
    """Twenty-four runs of three tenants, started at once and driven by one owner."""
    first = Entry(1, "session_started", b"one")
    await asyncio.gather(
        *(stores.sessions.start(tenant, session(name), ADA, first, request_id=None) for tenant, name in BUSY)
    )
    leases = await stores.leases.claim("one", ttl=stores.ttl, limit=100)
    return {(lease.tenant, lease.session_id): lease for lease in leases}


def told(place: tuple[str, str], sequence: int) -> Entry:
    return Entry(sequence, "x", f"{place} {sequence}".encode())


async def test_commits_of_many_runs_at_once_all_hold_in_their_own_order(stores: Stores) -> None:
    leases = await started(stores)

    async def write(place: tuple[str, str]) -> None:
        for sequence in range(2, 12):
            running = session(place[1])
            running.last_sequence = sequence
            await stores.sessions.append(leases[place], [told(place, sequence)], session=running)

    await asyncio.gather(*map(write, BUSY))
    for place in BUSY:
        entries = await stores.sessions.read(*place, 1, limit=100)
        assert entries == [told(place, sequence) for sequence in range(2, 12)]
        found = await stores.sessions.find(*place)
        assert found is not None
        assert found.last_sequence == 11


async def test_a_lost_lease_among_many_is_told_to_its_run_alone_and_writes_nothing(stores: Stores) -> None:
    leases = await started(stores)
    lost = {BUSY[3]: replace(leases[BUSY[3]], fence=0), BUSY[9]: replace(leases[BUSY[9]], owner="two")}
    answers = await asyncio.gather(
        *(
            stores.sessions.append({**leases, **lost}[place], [told(place, 2)], session=session(place[1]))
            for place in BUSY
        ),
        return_exceptions=True,
    )
    assert [place for place, answer in zip(BUSY, answers, strict=True) if isinstance(answer, LeaseLost)] == list(lost)
    for place in BUSY:
        assert len(await stores.sessions.read(*place, 0, limit=9)) == (1 if place in lost else 2)


async def test_what_ends_and_what_waits_are_released_in_one_go_each_as_it_must_be(stores: Stores) -> None:
    leases = await started(stores)
    over, waiting, signalled = BUSY[0], BUSY[1], BUSY[8]
    await stores.sessions.signal(*signalled, Signal("sig_1", "resume", "ada"), request_id=None)
    ended = session(over[1])
    ended.status = session_pb2.SESSION_STATUS_COMPLETED
    summaries = {over: ended, waiting: session(waiting[1]), signalled: session(signalled[1])}
    await asyncio.gather(
        *(
            stores.sessions.append(leases[place], [told(place, 2)], session=summary, release=True)
            for place, summary in summaries.items()
        )
    )
    again = await stores.leases.claim("two", ttl=stores.ttl, limit=100)
    assert [(lease.tenant, lease.session_id) for lease in again] == [signalled]


async def test_reads_starters_and_signals_of_many_runs_are_each_runs_own(stores: Stores) -> None:
    await started(stores)
    for tenant, name in BUSY:
        await stores.sessions.signal(tenant, name, Signal(f"sig_{tenant}_{name}", "pause", tenant), request_id=None)
    logs, starters, signals = await asyncio.gather(
        asyncio.gather(*(stores.sessions.read(*place, 0, limit=1 + len(place[0])) for place in BUSY)),
        asyncio.gather(*(stores.sessions.starter(*place) for place in BUSY)),
        asyncio.gather(*(stores.sessions.signals(*place) for place in BUSY)),
    )
    assert [[entry.payload for entry in log] for log in logs] == [[b"one"]] * len(BUSY)
    assert [starter.tenant_id for starter in starters] == [tenant for tenant, _ in BUSY]
    assert [found[0].id for found in signals] == [f"sig_{tenant}_{name}" for tenant, name in BUSY]


async def test_one_request_that_comes_many_times_at_once_starts_one_run(stores: Stores) -> None:
    first = Entry(1, "session_started", b"one")
    kept = await asyncio.gather(
        *(stores.sessions.start("acme", session(f"ses_{n}"), ADA, first, request_id="once") for n in range(10))
    )
    assert len({found.id for found in kept}) == 1
    assert len(await stores.leases.claim("one", ttl=stores.ttl, limit=100)) == 1


@pytest.mark.parametrize("stores", ["postgres"], indirect=True)
async def test_a_write_that_cannot_be_is_no_harm_to_those_it_went_with(stores: Stores, admin: Any) -> None:
    leases = await started(stores)
    twice = BUSY[5]
    await stores.sessions.append(leases[twice], [told(twice, 2)], session=session(twice[1]))
    answers = await asyncio.gather(
        *(stores.sessions.append(leases[place], [told(place, 2)], session=session(place[1])) for place in BUSY),
        return_exceptions=True,
    )
    assert [place for place, answer in zip(BUSY, answers, strict=True) if isinstance(answer, Exception)] == [twice]
    rows = await admin.fetch(
        "select payload, mac from orchestrator.event where tenant_id = 'acme' and session_id = 'ses_1'"
    )
    assert [row["mac"] for row in rows] == list(macs(LOG_KEY, START, [row["payload"] for row in rows]))


@pytest.mark.parametrize("stores", ["postgres"], indirect=True)
async def test_many_commits_take_few_transactions(stores: Stores, admin: Any) -> None:
    leases = await started(stores)
    for turn in range(2, 7):
        await asyncio.gather(
            *(stores.sessions.append(leases[place], [told(place, turn)], session=session(place[1])) for place in BUSY)
        )
    transactions = await admin.fetchval("select count(distinct xmin::text) from orchestrator.event where sequence > 1")
    assert transactions <= 10
