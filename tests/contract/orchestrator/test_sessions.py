"""What the orchestrator may rely on, whichever store keeps its sessions."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from agentnet.orchestrator.v1 import session_pb2, turn_pb2
from services.orchestrator.errors import LeaseLost
from services.orchestrator.store import Entry, Lease, SessionFilter, Signal
from shared.errors import PageTokenInvalid
from shared.identity import CredentialKind, Principal
from shared.paging import Page
from tests.contract.orchestrator.conftest import Stores

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ADA = Principal("acme", "ada", frozenset({"operator", "tenant_user"}))


def session(session_id: str = "ses_1", *, minute: int = 0, mode: str = "brainstorm") -> session_pb2.Session:
    made = session_pb2.Session(
        id=session_id,
        topic_start="Größe — ähnlich",
        mode=mode,
        strategy="round_robin",
        agents=["Athena@1.0.0"],
        max_rounds=2,
        status=session_pb2.SESSION_STATUS_PENDING,
        last_sequence=1,
    )
    made.metadata["project"] = "edgeX"
    made.start_time.FromDatetime(NOON + timedelta(minutes=minute))
    return made


def turn(turn_id: str, *, number: int = 1, agent: str = "Athena@1.0.0", minute: int = 0) -> turn_pb2.Turn:
    made = turn_pb2.Turn(id=turn_id, session_id="ses_1", round=number, agent=agent, prompt="Why?", content="Because.")
    made.end_time.FromDatetime(NOON + timedelta(minutes=minute))
    return made


async def start(stores: Stores, given: session_pb2.Session | None = None, *, request_id: str | None = None) -> None:
    first = Entry(1, "session_started", b"one")
    await stores.sessions.start("acme", given or session(), ADA, first, request_id=request_id)


async def claimed(stores: Stores, owner: str = "one") -> Lease:
    (lease,) = await stores.leases.claim(owner, ttl=stores.ttl, limit=1)
    return lease


async def test_a_started_session_is_found_whole_with_its_starter_and_first_event(stores: Stores) -> None:
    await start(stores)

    assert await stores.sessions.find("acme", "ses_1") == session()
    assert await stores.sessions.read("acme", "ses_1", 0, limit=9) == [Entry(1, "session_started", b"one")]
    starter = await stores.sessions.starter("acme", "ses_1")
    assert starter == replace(ADA, kind=CredentialKind.SERVICE)


async def test_another_tenant_sees_nothing(stores: Stores) -> None:
    await start(stores)

    assert await stores.sessions.find("other", "ses_1") is None
    assert await stores.sessions.read("other", "ses_1", 0, limit=9) == []
    assert await stores.sessions.turns("other", "ses_1", agent="", round_number=0, page=Page()) == []
    assert not await stores.sessions.signalled("other", "ses_1", "req_1")


async def test_the_same_request_starts_one_session(stores: Stores) -> None:
    await start(stores, request_id="req_1")

    again = await stores.sessions.start(
        "acme", session("ses_2"), ADA, Entry(1, "session_started", b"two"), request_id="req_1"
    )

    assert again.id == "ses_1"
    assert await stores.sessions.find("acme", "ses_2") is None


async def test_two_tenants_may_use_the_same_request_id(stores: Stores) -> None:
    await start(stores, request_id="req_1")

    other = await stores.sessions.start(
        "other", session("ses_2"), replace(ADA, tenant_id="other"), Entry(1, "x", b"x"), request_id="req_1"
    )

    assert other.id == "ses_2"


async def test_an_append_commits_events_summary_and_turn_together(stores: Stores) -> None:
    await start(stores)
    summary = session()
    summary.rounds_executed = 1
    entries = [Entry(2, "tokens_produced", b"\x00\xff"), Entry(3, "turn_finished", b"three")]

    await stores.sessions.append(await claimed(stores), entries, session=summary, turns=[turn("trn_1")])

    assert await stores.sessions.read("acme", "ses_1", 1, limit=9) == entries
    assert await stores.sessions.find("acme", "ses_1") == summary
    assert await stores.sessions.turns("acme", "ses_1", agent="", round_number=0, page=Page()) == [turn("trn_1")]


async def test_a_log_is_read_in_pages(stores: Stores) -> None:
    await start(stores)
    entries = [Entry(sequence, "x", b"%d" % sequence) for sequence in range(2, 8)]
    await stores.sessions.append(await claimed(stores), entries, session=session())

    assert await stores.sessions.read("acme", "ses_1", 3, limit=2) == entries[2:4]


async def test_turns_are_filtered_and_paged_in_their_order(stores: Stores) -> None:
    await start(stores)
    lease = await claimed(stores)
    spoken = [
        turn("trn_1", minute=1),
        turn("trn_2", agent="Apollo@1.0.0", minute=2),
        turn("trn_3", number=2, minute=3),
    ]
    for sequence, one in enumerate(spoken, start=2):
        await stores.sessions.append(lease, [Entry(sequence, "x", b"x")], session=session(), turns=[one])

    async def listed(*, agent: str = "", number: int = 0, page: Page) -> list[str]:
        found = await stores.sessions.turns("acme", "ses_1", agent=agent, round_number=number, page=page)
        return [one.id for one in found]

    assert await listed(page=Page(size=1)) == ["trn_1", "trn_2"]
    first = ((NOON + timedelta(minutes=1)).isoformat(), "trn_1")
    assert await listed(page=Page(size=5, cursor=first)) == ["trn_2", "trn_3"]
    with pytest.raises(PageTokenInvalid):
        await listed(page=Page(size=5, cursor=("1",)))
    assert await listed(agent="Athena", page=Page()) == ["trn_1", "trn_3"]
    assert await listed(number=2, page=Page()) == ["trn_3"]


async def test_sessions_are_listed_by_start_from_either_end(stores: Stores) -> None:
    for place in range(4):
        mode = "single" if place == 3 else "brainstorm"
        await start(stores, session(f"ses_{place}", minute=place, mode=mode))

    async def listed(*, mode: str = "", newest: bool = True, page: Page, status: int = 0) -> list[str]:
        found = await stores.sessions.every(
            "acme", SessionFilter(status=status, mode=mode, newest_first=newest), page=page
        )
        return [one.id for one in found]

    cursor = ((NOON + timedelta(minutes=2)).isoformat(), "ses_2")
    assert await listed(page=Page(size=2)) == ["ses_3", "ses_2", "ses_1"]
    assert await listed(page=Page(size=2, cursor=cursor)) == ["ses_1", "ses_0"]
    assert await listed(page=Page(size=2, cursor=cursor), newest=False) == ["ses_3"]
    assert await listed(mode="single", page=Page()) == ["ses_3"]
    assert await listed(status=session_pb2.SESSION_STATUS_FAILED, page=Page()) == []


async def test_one_owner_holds_a_session_until_its_lease_ends(stores: Stores) -> None:
    await start(stores)

    first = await claimed(stores, "one")
    nothing = await stores.leases.claim("two", ttl=stores.ttl, limit=1)
    await stores.pass_time()
    second = await claimed(stores, "two")

    assert nothing == []
    assert (first.fence, first.takeovers) == (1, 0)
    assert (second.fence, second.takeovers, second.owner) == (2, 1, "two")


async def test_only_the_newest_fence_writes(stores: Stores) -> None:
    await start(stores)
    old = await claimed(stores, "one")
    await stores.pass_time()
    new = await claimed(stores, "two")

    with pytest.raises(LeaseLost):
        await stores.sessions.append(old, [Entry(2, "x", b"old")], session=session())
    await stores.sessions.append(new, [Entry(2, "x", b"new")], session=session())

    assert await stores.sessions.read("acme", "ses_1", 1, limit=9) == [Entry(2, "x", b"new")]


async def test_a_refused_append_leaves_nothing_behind(stores: Stores) -> None:
    await start(stores)
    lease = await claimed(stores)
    await stores.pass_time()
    changed = session()
    changed.rounds_executed = 9

    with pytest.raises(LeaseLost):
        await stores.sessions.append(lease, [Entry(2, "x", b"x")], session=changed, turns=[turn("trn_1")])

    assert await stores.sessions.find("acme", "ses_1") == session()
    assert await stores.sessions.turns("acme", "ses_1", agent="", round_number=0, page=Page()) == []


async def test_what_is_given_back_is_free_at_once_and_no_takeover(stores: Stores) -> None:
    await start(stores)

    await stores.leases.give_back(await claimed(stores, "one"))

    assert (await claimed(stores, "two")).takeovers == 0


async def test_an_old_owner_gives_nothing_back(stores: Stores) -> None:
    await start(stores)
    old = await claimed(stores, "one")
    await stores.pass_time()
    await claimed(stores, "two")

    await stores.leases.give_back(old)

    assert await stores.leases.claim("three", ttl=stores.ttl, limit=1) == []


async def test_what_is_due_is_told_to_one_and_taken_by_name(stores: Stores) -> None:
    await start(stores)
    told = await stores.leases.due(until=stores.ttl, limit=9)
    again = await stores.leases.due(until=stores.ttl, limit=9)
    nothing = await stores.leases.claim("two", ttl=stores.ttl, limit=9)

    lease = await stores.leases.take("acme", "ses_1", "one", ttl=stores.ttl)

    assert (told, again, nothing) == ([("acme", "ses_1")], [], [])
    assert lease is not None
    assert (lease.owner, lease.fence, lease.takeovers, lease.kind) == ("one", 1, 0, "session")


async def test_who_takes_a_run_from_a_living_owner_shuts_that_one_out(stores: Stores) -> None:
    await start(stores)
    old = await claimed(stores, "one")
    new = await stores.leases.take("acme", "ses_1", "two", ttl=stores.ttl)

    assert new is not None
    assert (new.fence, new.takeovers) == (2, 1)
    with pytest.raises(LeaseLost):
        await stores.sessions.append(old, [Entry(2, "x", b"old")], session=session())
    await stores.sessions.append(new, [Entry(2, "x", b"new")], session=session())


async def test_what_rests_is_neither_due_nor_taken(stores: Stores) -> None:
    await start(stores)
    await stores.sessions.append(await claimed(stores), [Entry(2, "x", b"x")], session=session(), release=True)

    assert await stores.leases.due(until=stores.ttl, limit=9) == []
    assert await stores.leases.take("acme", "ses_1", "two", ttl=stores.ttl) is None


async def test_those_waiting_longest_are_claimed_first(stores: Stores) -> None:
    for place in range(3):
        await start(stores, session(f"ses_{place}"))

    leases = await stores.leases.claim("one", ttl=stores.ttl, limit=2)

    assert {lease.session_id for lease in leases} == {"ses_0", "ses_1"}


async def test_a_waiting_session_is_claimed_again_after_a_signal(stores: Stores) -> None:
    await start(stores)
    await stores.sessions.append(await claimed(stores), [Entry(2, "x", b"x")], session=session(), release=True)
    waiting = await stores.leases.claim("two", ttl=stores.ttl, limit=1)

    await stores.sessions.signal("acme", "ses_1", Signal("sig_1", "advance", "ada"), request_id=None)

    assert waiting == []
    assert (await claimed(stores, "two")).takeovers == 0


async def test_a_signal_nobody_took_keeps_the_session_ready(stores: Stores) -> None:
    await start(stores)
    lease = await claimed(stores)
    await stores.sessions.signal("acme", "ses_1", Signal("sig_1", "advance", "ada"), request_id=None)

    await stores.sessions.append(lease, [Entry(2, "x", b"x")], session=session(), release=True, signals_taken=0)

    assert (await claimed(stores, "two")).session_id == "ses_1"


async def test_an_ended_session_is_never_claimed_again(stores: Stores) -> None:
    await start(stores)
    ended = session()
    ended.status = session_pb2.SESSION_STATUS_COMPLETED
    ended.end_time.FromDatetime(NOON)
    await stores.sessions.append(await claimed(stores), [Entry(2, "x", b"x")], session=ended, release=True)
    await stores.pass_time()

    assert await stores.leases.claim("two", ttl=stores.ttl, limit=9) == []


async def test_signals_come_in_order_and_a_request_once(stores: Stores) -> None:
    await start(stores)

    for place, request_id in enumerate(["req_1", "req_1", None, None], start=1):
        signal = Signal(f"sig_{place}", "pause" if place < 3 else "resume", "ada")
        await stores.sessions.signal("acme", "ses_1", signal, request_id=request_id)

    signals = await stores.sessions.signals("acme", "ses_1")
    assert [(signal.id, signal.kind, signal.sender) for signal in signals] == [
        ("sig_1", "pause", "ada"),
        ("sig_3", "resume", "ada"),
        ("sig_4", "resume", "ada"),
    ]
    assert await stores.sessions.signalled("acme", "ses_1", "req_1")
    assert not await stores.sessions.signalled("acme", "ses_1", "req_2")


async def test_what_a_person_said_is_kept_with_its_signal(stores: Stores) -> None:
    await start(stores)
    said = Signal("sig_1", "input", "ada", "inp_1", "Rome, of course", approved=True, override_id="ovr_1")

    await stores.sessions.signal("acme", "ses_1", said, request_id="once")
    await stores.sessions.signal("acme", "ses_1", Signal("sig_2", "input", "ada", "inp_1", "Oslo"), request_id="once")

    assert await stores.sessions.signals("acme", "ses_1") == [said]


@pytest.mark.parametrize(
    ("chosen", "found"),
    [
        (SessionFilter(agent="Athena"), ["ses_3", "ses_2", "ses_1"]),
        (SessionFilter(agent="Zeus"), ["ses_3"]),
        (SessionFilter(agent="Zeu"), []),
        (SessionFilter(since=NOON + timedelta(minutes=2)), ["ses_3", "ses_2"]),
        (SessionFilter(until=NOON + timedelta(minutes=2)), ["ses_1"]),
        (SessionFilter(since=NOON, until=NOON + timedelta(minutes=3), newest_first=False), ["ses_1", "ses_2"]),
        (SessionFilter(metadata={"project": "edgeX"}), ["ses_3", "ses_2", "ses_1"]),
        (SessionFilter(metadata={"team": {"name": "core"}}), ["ses_3"]),
        (SessionFilter(metadata={"tags": ["b"]}), ["ses_3"]),
        (SessionFilter(metadata={"project": "edgeY"}), []),
        (SessionFilter(stop_reason=session_pb2.STOP_REASON_CONVERGED), ["ses_2"]),
        (SessionFilter(stop_reason=session_pb2.STOP_REASON_CONVERGED, agent="Zeus"), []),
    ],
)
async def test_sessions_are_found_by_who_when_why_and_what_was_noted(
    stores: Stores, chosen: SessionFilter, found: list[str]
) -> None:
    await start(stores, session("ses_1", minute=1))
    await start(stores, session("ses_2", minute=2))
    ended = session("ses_2", minute=2)
    ended.stop_reason, ended.status = session_pb2.STOP_REASON_CONVERGED, session_pb2.SESSION_STATUS_COMPLETED
    (lease,) = [one for one in await stores.leases.claim("one", ttl=stores.ttl, limit=2) if one.session_id == "ses_2"]
    await stores.sessions.append(lease, [Entry(2, "x", b"x")], session=ended, release=True)
    third = session("ses_3", minute=3)
    third.agents.append("Zeus@2.0.0")
    third.metadata.update({"team": {"name": "core", "size": 3}, "tags": ["a", "b"]})
    await start(stores, third)

    listed = await stores.sessions.every("acme", chosen, page=Page())

    assert [one.id for one in listed] == found


async def test_sessions_that_wait_for_people_are_found_until_they_do_not(stores: Stores) -> None:
    lease = {}
    for minute, name in enumerate(("ses_1", "ses_2", "ses_3")):
        await start(stores, session(name, minute=minute))
        lease[name] = await claimed(stores)
        asking = session(name, minute=minute)
        asking.inputs.add(id=f"inp_{name}")
        await stores.sessions.append(lease[name], [Entry(2, "input_requested", b"x")], session=asking)

    async def asking_now(cursor: tuple[str, ...] = ()) -> list[str]:
        found = await stores.sessions.asking("acme", page=Page(size=2, cursor=cursor))
        return [one.id for one in found]

    assert await asking_now() == ["ses_1", "ses_2", "ses_3"]
    seen = session("ses_2", minute=1).start_time.ToDatetime(UTC).isoformat()
    assert await asking_now((seen, "ses_2")) == ["ses_3"]
    await stores.sessions.append(lease["ses_1"], [Entry(3, "input_given", b"x")], session=session("ses_1"))
    assert await asking_now() == ["ses_2", "ses_3"]
    assert not await stores.sessions.asking("other", page=Page())


async def test_a_signal_of_one_id_is_kept_once(stores: Stores) -> None:
    """However many replicas tell a session that nobody answered in time."""
    await start(stores)
    late = Signal("sig_late_inp_1", "expire", "mesh", "inp_1")
    for _ in range(3):
        await stores.sessions.signal("acme", "ses_1", late, request_id=None)
    assert await stores.sessions.signals("acme", "ses_1") == [late]


async def test_everybody_who_has_a_run_is_named_once(stores: Stores) -> None:
    for number, tenant in enumerate(("acme", "globex", "acme")):
        first = Entry(1, "session_started", b"one")
        await stores.sessions.start(tenant, session(f"ses_{number}"), ADA, first, request_id=None)
    found = list(await stores.leases.tenants())
    assert sorted(found) == sorted(set(found))
    assert {"acme", "globex"} <= set(found)
