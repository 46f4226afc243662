"""What is accepted by a replica that drives it at once, whichever store keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from services.orchestrator.errors import LeaseLost
from services.orchestrator.store import Begun, Entry, Lease
from services.orchestrator.store_memory import MemorySessionStore
from services.orchestrator.store_postgres import PostgresSessionStore
from shared.identity import CredentialKind
from tests.contract.orchestrator.conftest import Stores
from tests.contract.orchestrator.test_sessions import ADA, session, start

FIRST = Entry(1, "session_started", b"one")


@dataclass(slots=True)
class Taking:
    """Has room for so many."""

    room: int
    ttl: timedelta
    owner: str = "one"
    open: int = 0
    leases: list[Lease] = field(default_factory=list)

    def reserve(self, wanted: int) -> int:
        reserved = min(self.room, wanted)
        self.room -= reserved
        self.open += reserved
        return reserved

    def taken(self, leases: Sequence[Lease], *, reserved: int) -> None:
        self.open -= reserved
        self.leases += leases


def taking(stores: Stores, *, room: int = 9) -> Taking:
    assert isinstance(stores.sessions, MemorySessionStore | PostgresSessionStore)
    taker = Taking(room, stores.ttl)
    stores.sessions.driven_by(taker)
    return taker


async def test_who_accepts_a_run_may_write_it_from_its_start_and_nobody_else(stores: Stores) -> None:
    taker = taking(stores)
    await start(stores)
    assert taker.leases == [Lease("acme", "ses_1", "one", 1, 0)]
    assert taker.leases[0].begun == Begun(replace(ADA, kind=CredentialKind.SERVICE), FIRST)
    assert await stores.leases.claim("two", ttl=stores.ttl, limit=9) == []
    await stores.sessions.append(taker.leases[0], [Entry(2, "x", b"two")], session=session())
    assert (await stores.sessions.check_chain("acme", "ses_1")).intact


async def test_one_whose_taker_died_is_taken_over_like_any_other(stores: Stores) -> None:
    taker = taking(stores)
    await start(stores)
    await stores.pass_time()
    (lease,) = await stores.leases.claim("two", ttl=stores.ttl, limit=9)
    assert (lease.owner, lease.fence, lease.takeovers, lease.begun) == ("two", 2, 1, None)
    with pytest.raises(LeaseLost):
        await stores.sessions.append(taker.leases[0], [Entry(2, "x", b"two")], session=session())


async def test_what_there_is_no_room_for_waits_to_be_claimed(stores: Stores) -> None:
    taker = taking(stores, room=1)
    await start(stores, session("ses_1"))
    await start(stores, session("ses_2"))
    (lease,) = await stores.leases.claim("two", ttl=stores.ttl, limit=9)
    assert ([one.session_id for one in taker.leases], lease.session_id) == (["ses_1"], "ses_2")


async def test_a_request_that_was_made_before_begins_nothing_and_leaves_its_place(stores: Stores) -> None:
    taker = taking(stores)
    await start(stores, session("ses_1"), request_id="once")
    await start(stores, session("ses_2"), request_id="once")
    assert [one.session_id for one in taker.leases] == ["ses_1"]
    assert taker.open == 0
