"""What following the logs may rely on, whichever store keeps what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from agentnet.orchestrator.v1 import event_pb2, execution_pb2, reasoning_service_pb2, session_pb2
from deploy.local.postgres import Cluster
from services.orchestrator.agents.history_memory import MemoryHappeningStore, MemoryHistoryStore
from services.orchestrator.agents.history_postgres import PostgresHappeningStore, PostgresHistoryStore
from services.orchestrator.agents.history_store import HappeningStore, HistoryStore, Rating, Wanted
from services.orchestrator.agents.reputation import Evidence
from services.orchestrator.leases_memory import MemoryLeaseStore
from services.orchestrator.store import Entry, SessionStore
from services.orchestrator.store_memory import MemorySessionStore
from services.orchestrator.store_postgres import PostgresSessionStore
from shared.clock import FakeClock
from shared.errors import Reason, Unavailable
from shared.identity import Principal
from shared.paging import Page
from shared.postgres import open_database
from tests.contract.orchestrator.conftest import LOG_KEY

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ADA = Principal("acme", "ada", frozenset({"tenant_user"}))


@dataclass(frozen=True, slots=True)
class Kept:
    sessions: SessionStore
    happenings: HappeningStore
    history: HistoryStore


@pytest.fixture(params=["memory", "postgres"])
async def kept(request: pytest.FixtureRequest) -> AsyncIterator[Kept]:
    if request.param == "memory":
        sessions = MemorySessionStore(MemoryLeaseStore(FakeClock()))
        yield Kept(sessions, MemoryHappeningStore(sessions), MemoryHistoryStore())
        return
    cluster: Cluster = request.getfixturevalue("postgres")
    admin = await asyncpg.connect(cluster.dsn("postgres"))
    for table in ("happening", "agent_execution", "agent_evidence", "agent_rating", "reasoning_tree", "event",
                  "session_lease", "session"):  # fmt: skip
        await admin.execute(f"truncate orchestrator.{table} cascade")
    await admin.close()
    async with (
        open_database(cluster.dsn("orchestrator"), pool=4) as own,
        open_database(cluster.dsn("orchestrator_driver"), pool=2) as driver,
    ):
        store = PostgresSessionStore(own, log_key=LOG_KEY)
        yield Kept(store, PostgresHappeningStore(driver, own), PostgresHistoryStore(own))


async def started(kept: Kept, session_id: str, tenant: str = "acme") -> None:
    session = session_pb2.Session(id=session_id, mode="single", status=session_pb2.SESSION_STATUS_PENDING)
    session.start_time.FromDatetime(NOON)
    event = event_pb2.SessionEvent(session_id=session_id, sequence=1)
    first = Entry(1, "session_started", event.SerializeToString())
    await kept.sessions.start(tenant, session, ADA, first, request_id=None)


def execution(key: str, *, seconds: float = 1, reason: int = 0, minute: int = 0) -> execution_pb2.AgentExecution:
    made = execution_pb2.AgentExecution(
        id=key, agent="Athena@1.0.0", session_id="ses_1", success=not reason, cost_micros_usd=5
    )
    made.failure.reason = reason
    made.usage.input_tokens, made.usage.output_tokens = 10, 3
    made.tools.add(tool="search@1.0.0", calls=2, failures=1).elapsed.FromSeconds(1)
    made.start_time.FromDatetime(NOON + timedelta(minutes=minute))
    made.end_time.FromDatetime(NOON + timedelta(minutes=minute, seconds=seconds))
    return made


@pytest.mark.parametrize("over", [True, False], ids=["import", "fork"])
async def test_what_was_adopted_is_known_as_copied(kept: Kept, over: bool) -> None:
    session = session_pb2.Session(id="ses_9", mode="single", status=session_pb2.SESSION_STATUS_PENDING)
    session.start_time.FromDatetime(NOON)
    if over:
        session.status = session_pb2.SESSION_STATUS_COMPLETED
        session.end_time.FromDatetime(NOON)
    kinds = ("session_started", "turn_started", "turn_finished", "handed_off")
    log = [
        Entry(place, kind, event_pb2.SessionEvent(session_id="ses_9", sequence=place).SerializeToString())
        for place, kind in enumerate(kinds, start=1)
    ]
    await kept.sessions.adopt("acme", session, ADA, log, [], request_id=None)

    async with kept.happenings.taken(limit=10) as found:
        told = [(one.sequence, one.kind, one.copied) for one in found]

    assert told == [(1, "session_started", over), (3, "turn_finished", True), (4, "handed_off", True)]


async def test_what_happened_comes_until_it_was_followed(kept: Kept) -> None:
    await started(kept, "ses_1")
    await started(kept, "ses_2", "other")
    with pytest.raises(Unavailable):
        async with kept.happenings.taken(limit=9) as first:
            raise Unavailable("the bus is away")
    async with kept.happenings.taken(limit=9) as again:
        assert list(again) == list(first)
        assert [(one.tenant, one.session_id, one.sequence, one.kind) for one in again] == [
            ("acme", "ses_1", 1, "session_started"),
            ("other", "ses_2", 1, "session_started"),
        ]
    async with kept.happenings.taken(limit=9) as left:
        assert list(left) == []


async def test_one_at_a_time_follows(kept: Kept) -> None:
    await started(kept, "ses_1")
    async with kept.happenings.taken(limit=9) as mine, kept.happenings.taken(limit=9) as others:
        assert (len(mine), len(others)) == (1, 0)


async def test_the_context_of_an_event_is_of_its_tenant(kept: Kept) -> None:
    await started(kept, "ses_1")
    (entry,) = await kept.happenings.context("acme", "ses_1", 1)
    assert (entry.sequence, entry.kind) == (1, "session_started")


async def test_an_execution_counts_once(kept: Kept) -> None:
    evidence = [Evidence("executions", 1, 1, NOON), Evidence("violations", 0, 0.5, NOON)]
    assert await kept.history.keep("acme", [(execution("e1"), evidence)]) == [True]
    assert await kept.history.keep("acme", [(execution("e1"), evidence)]) == [False]
    known = await kept.history.evidence("acme", ["Athena", "Zeus"])
    assert {source: (s.positive, s.negative, s.count) for source, s in known["Athena"].items()} == {
        "executions": (1, 0, 1),
        "violations": (0, 0.5, 1),
    }
    assert known["Zeus"] == {}
    assert (await kept.history.evidence("other", ["Athena"]))["Athena"] == {}


async def test_evidence_counted_at_once_is_not_lost(kept: Kept) -> None:
    found = [Evidence("executions", 1, 1, NOON)]
    await asyncio.gather(*(kept.history.keep("acme", [(execution(f"e{n}"), found)]) for n in range(8)))
    sums = (await kept.history.evidence("acme", ["Athena"]))["Athena"]["executions"]
    assert (sums.positive, sums.count) == (8, 8)


async def test_executions_are_listed_newest_first_and_filtered(kept: Kept) -> None:
    for minute, reason in enumerate((0, Reason.ERROR_REASON_OUTPUT_INVALID, 0)):
        await kept.history.keep("acme", [(execution(f"e{minute}", reason=reason, minute=minute), [])])
    wanted = Wanted("Athena")
    first = await kept.history.executions("acme", wanted, page=Page(size=1))
    assert [one.id for one in first] == ["e2", "e1"]
    cursor = (first[0].end_time.ToDatetime(UTC).isoformat(), first[0].id)
    rest = await kept.history.executions("acme", wanted, page=Page(size=9, cursor=cursor))
    assert [one.id for one in rest] == ["e1", "e0"]
    failed = await kept.history.executions("acme", Wanted("Athena", failed_only=True), page=Page())
    assert list(failed) == [execution("e1", reason=Reason.ERROR_REASON_OUTPUT_INVALID, minute=1)]
    for other in (Wanted("Athena", "Athena@2.0.0"), Wanted("Athena", session_id="ses_9"), Wanted("Zeus")):
        assert not await kept.history.executions("acme", other, page=Page())
    assert not await kept.history.executions("other", wanted, page=Page())


async def test_metrics_are_sums_and_percentiles_of_a_time(kept: Kept) -> None:
    for number in range(1, 5):
        await kept.history.keep("acme", [(execution(f"e{number}", seconds=number), [])])
    await kept.history.keep("acme", [(execution("bad", seconds=5, reason=Reason.ERROR_REASON_OUTPUT_INVALID), [])])
    await kept.history.keep("acme", [(execution("late", minute=99), [])])
    found = await kept.history.metrics("acme", Wanted("Athena"), start=NOON, end=NOON + timedelta(minutes=1))
    took = [
        getattr(found, name).ToTimedelta().total_seconds() for name in ("latency_p50", "latency_p95", "latency_p99")
    ]
    assert took == pytest.approx([3, 4.8, 4.96])
    assert (found.calls, found.errors, found.cost_micros_usd, found.usage.input_tokens) == (5, 1, 25, 50)
    assert dict(found.errors_by_reason) == {"OUTPUT_INVALID": 1}
    (use,) = found.tools
    assert (use.tool, use.calls, use.failures, use.elapsed.seconds) == ("search@1.0.0", 10, 5, 5)
    nothing = await kept.history.metrics("acme", Wanted("Zeus"), start=NOON, end=NOON + timedelta(minutes=1))
    assert (nothing.calls, nothing.latency_p99.seconds) == (0, 0)


async def test_a_rating_counts_once(kept: Kept) -> None:
    rating = Rating("ada/r1", "Athena", Evidence("review", 0.75, 2, NOON), "trn_1", "Good.", "ada")
    await kept.history.rate("acme", rating)
    await kept.history.rate("acme", rating)
    sums = (await kept.history.evidence("acme", ["Athena"]))["Athena"]["review"]
    assert (sums.positive, sums.negative, sums.count) == (1.5, 0.5, 1)


async def test_trees_come_back_oldest_first_and_once(kept: Kept) -> None:
    for place, turn in enumerate(("b", "a", "c")):
        tree = reasoning_service_pb2.ReasoningTree(turn_id=turn, session_id="ses_1", confidence=0.5)
        tree.time.FromDatetime(NOON + timedelta(minutes=place))
        await kept.history.keep_trees("acme", [tree])
        tree.confidence = 0.9
        await kept.history.keep_trees("acme", [tree])
    found = await kept.history.trees("acme", "ses_1", limit=2)
    assert [(tree.turn_id, tree.confidence) for tree in found] == [("a", 0.5), ("c", 0.5)]
    assert not await kept.history.trees("other", "ses_1", limit=2)
