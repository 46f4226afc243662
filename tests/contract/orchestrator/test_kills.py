"""A session whose owner dies at any of its writes ends as an undisturbed one, on every store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from agentnet.orchestrator.v1 import event_pb2, session_pb2
from services.orchestrator.drivers.session import SessionDriver
from services.orchestrator.replays.replay import replay
from services.orchestrator.store import Entry, Lease, LogTail, SessionStore
from services.orchestrator.tail import RedisTail
from services.orchestrator.tail_memory import MemoryTail
from shared.ids import RandomIds
from shared.paging import Page
from tests.contract.orchestrator.conftest import Stores
from tests.support.mortal import Fate, Killed, Moment
from tests.support.orchestrator import ADA, TENANT, TTL, World

Event = event_pb2.SessionEvent


class Mortal:
    """A store or a tail as a process sees it that dies at a write."""

    def __init__(self, real: Any, fate: Fate) -> None:
        self._real = real
        self._fate = fate

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def append(self, lease: Lease, entries: Sequence[Entry], **given: Any) -> Any:
        self._fate.before()
        done = await self._real.append(lease, entries, **given)
        self._fate.after()
        return done


@pytest.fixture
def tail(stores: Stores, request: pytest.FixtureRequest) -> LogTail:
    if "Memory" in type(stores.sessions).__name__:
        return MemoryTail()
    redis: Redis = request.getfixturevalue("redis")
    return RedisTail(redis, ttl=TTL)


def driver(world: World, store: SessionStore, tail: LogTail) -> SessionDriver:
    turns = replace(world.driver().turns, ids=RandomIds())
    return SessionDriver(store, tail, turns, world.clock, max_takeovers=5)


async def started(world: World, stores: Stores, session_id: str) -> None:
    session = session_pb2.Session(
        id=session_id, topic_start="Failover", mode="brainstorm", strategy="round_robin", max_rounds=2,
        agents=["Athena@1.0.0", "Apollo@1.0.0"], status=session_pb2.SESSION_STATUS_PENDING, last_sequence=1,
    )  # fmt: skip
    session.start_time.FromDatetime(world.clock.now())
    first = Event(session_id=session_id, sequence=1, actor="user:ada")
    first.time.CopyFrom(session.start_time)
    first.session_started.session.CopyFrom(session)
    entry = Entry(1, "session_started", first.SerializeToString())
    await stores.sessions.start(TENANT, session, ADA, entry, request_id=None)


async def drive(driving: SessionDriver, stores: Stores, owner: str) -> bool:
    """False when its owner died."""
    (lease,) = await stores.leases.claim(owner, ttl=stores.ttl, limit=1)
    try:
        await driving.drive(lease, asyncio.Event())
    except Killed:
        return False
    return True


async def story(stores: Stores, session_id: str) -> tuple[list[tuple[int, str, str]], session_pb2.Session]:
    turns = await stores.sessions.turns(TENANT, session_id, agent="", round_number=0, page=Page(size=500))
    session = await stores.sessions.find(TENANT, session_id)
    assert session is not None
    told = session_pb2.Session(
        status=session.status, stop_reason=session.stop_reason, rounds_executed=session.rounds_executed,
        usage=session.usage, cost_micros_usd=session.cost_micros_usd,
        round_similarities=session.round_similarities,
    )  # fmt: skip
    return [(turn.round, turn.agent, turn.content) for turn in turns], told


async def killed_at(at: int, moment: Moment, stores: Stores, tail: LogTail) -> tuple[bool, Any]:
    """Whether it was killed at all, and what the session came to."""
    world, session_id = World(), f"ses_{moment}_{at}"
    await started(world, stores, session_id)
    fate = Fate(at, moment)
    mortal: Any = (Mortal(stores.sessions, fate), Mortal(tail, fate))
    with tail.woken(TENANT, session_id):  # who is read writes more often
        lived = await drive(driver(world, *mortal), stores, "one")
    session = await stores.sessions.find(TENANT, session_id)
    if not lived and session and not session.HasField("end_time"):
        await stores.pass_time()
        assert await drive(driver(world, stores.sessions, tail), stores, "two")
    asked = [utterance.generation_id for utterance in world.inference.started]
    assert len(asked) == len(set(asked)) == 4, f"died {moment} write {at}: a turn was repeated"
    log = [Event.FromString(one.payload) for one in await stores.sessions.read(TENANT, session_id, 0, limit=999)]
    assert [event.sequence for event in log] == list(range(1, len(log) + 1))
    assert (await stores.sessions.check_chain(TENANT, session_id)).intact
    assert (await replay(log, ADA, world.agents, max_takeovers=5)).identical, f"died {moment} write {at}"
    return not lived, await story(stores, session_id)


@pytest.mark.heavy
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_death_at_any_write_ends_as_an_undisturbed_session(
    stores: Stores, tail: LogTail, moment: Moment
) -> None:
    _, expected = await killed_at(999, moment, stores, tail)
    for at in range(1, 200):
        died, found = await killed_at(at, moment, stores, tail)
        assert found == expected, f"died {moment} write {at}"
        if not died:
            break
    assert at > 12


@pytest.mark.parametrize("at", [2, 7])
async def test_a_death_at_a_write_ends_as_an_undisturbed_session(stores: Stores, tail: LogTail, at: int) -> None:
    _, expected = await killed_at(999, "after", stores, tail)
    died, found = await killed_at(at, "after", stores, tail)
    assert died
    assert found == expected
