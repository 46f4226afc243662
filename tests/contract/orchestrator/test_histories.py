"""Logs that others wrote, and whether a log is as it was written."""

from __future__ import annotations

from typing import Any

import pytest

from agentnet.orchestrator.v1 import event_pb2, history_pb2, session_pb2
from services.orchestrator.store import Entry
from shared.paging import Page
from tests.contract.orchestrator.conftest import Stores
from tests.contract.orchestrator.test_sessions import ADA, claimed, session, start, turn


def log(count: int, *, ended: bool = False) -> list[Entry]:
    events = [event_pb2.SessionEvent(session_id="ses_1", sequence=place) for place in range(1, count + 1)]
    if ended:
        events[-1].session_finished.session.id = "ses_1"
    return [Entry(event.sequence, event.WhichOneof("payload") or "x", event.SerializeToString()) for event in events]


def over() -> session_pb2.Session:
    made = session()
    made.status, made.last_sequence, made.converged = session_pb2.SESSION_STATUS_COMPLETED, 4, True
    made.end_time.FromSeconds(made.start_time.seconds + 60)
    return made


async def test_an_adopted_session_is_whole_and_goes_on_by_itself(stores: Stores) -> None:
    given = session()
    given.last_sequence = 3
    kept = await stores.sessions.adopt("acme", given, ADA, log(3), [turn("trn_1")], request_id=None)

    assert kept == await stores.sessions.find("acme", "ses_1") == given
    assert await stores.sessions.read("acme", "ses_1", 0, limit=9) == log(3)
    assert await stores.sessions.turns("acme", "ses_1", agent="", round_number=0, page=Page()) == [turn("trn_1")]
    lease = await claimed(stores)
    await stores.sessions.append(lease, log(4)[3:], session=session())
    assert await stores.sessions.check_chain("acme", "ses_1") == history_pb2.ChainReport(intact=True, events=4)


async def test_an_adopted_session_that_has_ended_is_driven_by_nobody(stores: Stores) -> None:
    await stores.sessions.adopt("acme", over(), ADA, log(4, ended=True), [], request_id=None)

    assert await stores.leases.claim("one", ttl=stores.ttl, limit=9) == []
    assert await stores.sessions.check_chain("acme", "ses_1") == history_pb2.ChainReport(intact=True, events=4)


async def test_the_same_request_adopts_once_and_other_tenants_see_nothing(stores: Stores) -> None:
    await stores.sessions.adopt("acme", session(), ADA, log(3), [], request_id="req_1")
    again = await stores.sessions.adopt("acme", session("ses_2"), ADA, log(3), [], request_id="req_1")

    assert again.id == "ses_1"
    assert await stores.sessions.find("acme", "ses_2") is None
    assert await stores.sessions.find("other", "ses_1") is None


async def test_a_log_that_ends_before_its_session_does_is_truncated(stores: Stores) -> None:
    await stores.sessions.adopt("acme", over(), ADA, log(3), [], request_id=None)

    found = await stores.sessions.check_chain("acme", "ses_1")

    assert found == history_pb2.ChainReport(events=3, sequence=4, fault="truncated")


@pytest.mark.parametrize(
    ("fault", "sequence", "how"),
    [
        ("edited", 3, "update orchestrator.event set payload = payload || '\\x2a0178' where sequence = 3"),
        ("missing", 2, "delete from orchestrator.event where sequence = 2"),
        ("truncated", 4, "delete from orchestrator.event where sequence = 4"),
        (
            "edited",
            2,
            (
                "update orchestrator.event e set payload = o.payload, mac = o.mac from orchestrator.event o"
                " where o.session_id = e.session_id and o.sequence + e.sequence = 5 and e.sequence in (2, 3)"
            ),
        ),
    ],
)
async def test_what_was_done_to_a_stored_log_is_found(
    stores: Stores, postgres: Any, admin: Any, fault: str, sequence: int, how: str
) -> None:
    if "Memory" in type(stores.sessions).__name__:
        pytest.skip("category: Postgres - its rows are tampered with from outside")
    await start(stores)
    entries = log(4)[1:]
    told = session()
    told.last_sequence = 4
    await stores.sessions.append(await claimed(stores), entries, session=told)
    assert (await stores.sessions.check_chain("acme", "ses_1")).intact

    await admin.execute(how)

    found = await stores.sessions.check_chain("acme", "ses_1")
    assert (found.intact, found.fault, found.sequence) == (False, fault, sequence)
