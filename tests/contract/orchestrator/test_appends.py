"""Many logs written at once: each by itself, whatever comes of the others."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from services.orchestrator.errors import LeaseLost
from services.orchestrator.store import Entry, Signal
from shared.paging import Page
from shared.postgres import TextUnwritable
from tests.contract.orchestrator.conftest import Stores
from tests.contract.orchestrator.test_sessions import session, start, turn


async def test_appends_that_come_together_are_answered_each_by_itself(stores: Stores) -> None:
    for place in range(1, 6):
        await start(stores, session(f"ses_{place}"))
    leases = {lease.session_id: lease for lease in await stores.leases.claim("one", ttl=stores.ttl, limit=5)}
    await stores.sessions.signal("acme", "ses_2", Signal("sig_1", "pause", "ada"), request_id=None)
    leases["ses_3"] = replace(leases["ses_3"], fence=99)

    found = await asyncio.gather(
        *(
            stores.sessions.append(leases[name], [Entry(2, "x", name.encode())], session=session(name))
            for name in sorted(leases)
        ),
        return_exceptions=True,
    )

    assert [one if isinstance(one, int) else type(one) for one in found] == [0, 1, LeaseLost, 0, 0]
    for name in leases:
        written = [entry.payload for entry in await stores.sessions.read("acme", name, 1, limit=9)]
        assert written == ([] if name == "ses_3" else [name.encode()])


async def test_turns_that_end_together_are_all_kept_each_with_its_own_log(stores: Stores) -> None:
    for name in ("ses_1", "ses_2", "ses_3"):
        await start(stores, session(name))
    leases = {lease.session_id: lease for lease in await stores.leases.claim("one", ttl=stores.ttl, limit=3)}
    ended = {"ses_1": ["trn_1", "trn_2", "trn_3"], "ses_2": [], "ses_3": ["trn_4"]}

    found = await asyncio.gather(
        *(
            stores.sessions.append(
                leases[name], [Entry(2, "x", b"x")], session=session(name), turns=[turn(one) for one in turns]
            )
            for name, turns in ended.items()
        )
    )

    assert found == [0, 0, 0]
    for name, turns in ended.items():
        assert await stores.sessions.read("acme", name, 1, limit=9) == [Entry(2, "x", b"x")]
        kept = await stores.sessions.turns("acme", name, agent="", round_number=0, page=Page())
        assert [one.id for one in kept] == turns


async def test_what_postgres_refuses_of_one_log_harms_no_other(stores: Stores) -> None:
    if "Memory" in type(stores.sessions).__name__:
        pytest.skip("category: Postgres - only it refuses a text with U+0000")
    for name in ("ses_1", "ses_2", "ses_3"):
        await start(stores, session(name))
    leases = {lease.session_id: lease for lease in await stores.leases.claim("one", ttl=stores.ttl, limit=5)}
    refused = turn("trn_1")
    refused.content = "\x00"

    found = await asyncio.gather(
        stores.sessions.append(leases["ses_1"], [Entry(2, "x", b"x")], session=session("ses_1"), turns=[refused]),
        *(
            stores.sessions.append(leases[name], [Entry(2, "x", b"x")], session=session(name))
            for name in ("ses_2", "ses_3")
        ),
        return_exceptions=True,
    )

    assert isinstance(found[0], TextUnwritable)
    assert found[1:] == [0, 0]
    assert await stores.sessions.read("acme", "ses_1", 1, limit=9) == []
