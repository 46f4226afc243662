"""What the orchestrator may rely on for task graphs, whichever store keeps them."""

from __future__ import annotations

from typing import Any

import pytest

from agentnet.orchestrator.v1 import session_pb2, task_graph_pb2
from services.orchestrator.graphs import shapes
from services.orchestrator.store import Entry, Lease, Signal
from shared.paging import Page
from tests.contract.orchestrator.conftest import Stores
from tests.contract.orchestrator.test_sessions import ADA, NOON, claimed, session, start
from tests.support.graphs import node


def graph(graph_id: str = "tgr_1") -> task_graph_pb2.TaskGraph:
    rich = node(
        "b", "a", fallback_agent="Apollo@1.0.0", condition="results.a.success", edge_conditions={"a": "true"},
        kind=task_graph_pb2.TASK_KIND_AGGREGATOR, aggregation=task_graph_pb2.AGGREGATION_BEST_OF, score="1.5",
    )  # fmt: skip
    made = shapes.graph(task_graph_pb2.TaskGraph(goal="Größe — ähnlich", nodes=[node("a"), rich]))
    made.id, made.status = graph_id, task_graph_pb2.TASK_STATUS_PENDING
    made.create_time.FromDatetime(NOON)
    return made


async def started(stores: Stores, number: int = 1, *, tenant: str = "acme", request_id: str | None = None) -> str:
    given = session(f"ses_{number}", minute=number, mode="task_graph")
    first = Entry(1, "session_started", b"one")
    kept = await stores.sessions.start(tenant, given, ADA, first, request_id=request_id, graph=graph(f"tgr_{number}"))
    return kept.id


async def ended(stores: Stores, lease: Lease, status: session_pb2.SessionStatus.ValueType) -> None:
    final = session(lease.session_id, minute=int(lease.session_id.removeprefix("ses_")), mode="task_graph")
    final.status = status
    await stores.sessions.append(lease, [Entry(2, "session_finished", b"two")], session=final, release=True)


async def test_a_graph_is_found_whole_by_its_id_and_by_its_session(stores: Stores) -> None:
    await started(stores)
    kept = await stores.sessions.find_graph("acme", "tgr_1")
    assert kept is not None
    assert (kept.graph, kept.session.id) == (graph(), "ses_1")
    assert await stores.sessions.graph_of("acme", "ses_1") == graph()
    assert await stores.sessions.find_graph("acme", "tgr_2") is None
    assert await stores.sessions.find_graph("other", "tgr_1") is None
    assert await stores.sessions.graph_of("acme", "ses_2") is None


async def test_a_request_id_makes_one_graph(stores: Stores) -> None:
    assert await started(stores, 1, request_id="once") == "ses_1"
    assert await started(stores, 2, request_id="once") == "ses_1"
    assert await stores.sessions.find_graph("acme", "tgr_2") is None


async def test_a_lease_says_what_it_is_of(stores: Stores) -> None:
    await started(stores)
    assert (await claimed(stores)).kind == "graph"
    await start(stores, session("ses_2"))
    assert (await claimed(stores)).kind == "session"


async def test_graphs_are_listed_newest_first_by_page_and_by_status(stores: Stores) -> None:
    await start(stores, session("ses_0"))
    for number in (1, 2, 3):
        await started(stores, number)
    leases = {lease.session_id: lease for lease in await stores.leases.claim("one", ttl=stores.ttl, limit=9)}
    await ended(stores, leases["ses_2"], session_pb2.SESSION_STATUS_COMPLETED)

    first = await stores.sessions.every_graph("acme", statuses=(), page=Page(size=2))
    cursor = (first[1].session.start_time.ToDatetime().replace(tzinfo=NOON.tzinfo).isoformat(), first[1].session.id)
    rest = await stores.sessions.every_graph("acme", statuses=(), page=Page(size=2, cursor=cursor))
    done = (session_pb2.SESSION_STATUS_COMPLETED,)
    completed = await stores.sessions.every_graph("acme", statuses=done, page=Page())

    assert [kept.graph.id for kept in first] == ["tgr_3", "tgr_2", "tgr_1"]
    assert [kept.graph.id for kept in rest] == ["tgr_1"]
    assert [kept.graph.id for kept in completed] == ["tgr_2"]
    assert await stores.sessions.every_graph("other", statuses=(), page=Page()) == []


async def test_a_signal_names_the_part_it_is_for(stores: Stores) -> None:
    await started(stores)
    await stores.sessions.signal("acme", "ses_1", Signal("sig_1", "cancel_task", "ada", "a"), request_id=None)
    assert await stores.sessions.signals("acme", "ses_1") == [Signal("sig_1", "cancel_task", "ada", "a")]


async def test_tenants_take_turns_when_many_wait(stores: Stores) -> None:
    for number in range(1, 7):
        await started(stores, number, tenant="many")
    for number in (7, 8):
        await started(stores, number, tenant="few")

    taken = await stores.leases.claim("one", ttl=stores.ttl, limit=4)

    assert sorted(lease.tenant for lease in taken) == ["few", "few", "many", "many"]
    assert {lease.session_id for lease in taken} == {"ses_1", "ses_2", "ses_7", "ses_8"}


@pytest.mark.parametrize("stores", ["postgres"], indirect=True)
@pytest.mark.parametrize("word", ["completed", "failed", "cancelled"])
async def test_the_seeds_table_says_how_a_graph_stands_in_words(stores: Stores, admin: Any, word: str) -> None:
    await started(stores)
    accepted = await admin.fetchrow("select status, graph_json ->> 'goal' as goal from orchestrator.task_graph")
    await ended(stores, await claimed(stores), session_pb2.SessionStatus.Value(f"SESSION_STATUS_{word.upper()}"))
    assert dict(accepted) == {"status": "pending", "goal": "Größe — ähnlich"}
    assert await admin.fetchval("select status from orchestrator.task_graph") == word


@pytest.mark.parametrize("stores", ["postgres"], indirect=True)
async def test_a_replica_that_did_not_write_the_last_event_links_its_own_to_it(stores: Stores, admin: Any) -> None:
    from services.orchestrator.chain import START, macs
    from services.orchestrator.store_postgres import PostgresSessionStore
    from tests.contract.orchestrator.conftest import LOG_KEY

    await started(stores)
    lease = await claimed(stores)
    fresh = PostgresSessionStore(stores.sessions._database, log_key=LOG_KEY)  # type: ignore[attr-defined]
    await stores.sessions.append(lease, [Entry(2, "x", b"two")], session=session())
    await fresh.append(lease, [Entry(3, "x", b"three")], session=session())
    await fresh.append(lease, [Entry(4, "x", b"four")], session=session())

    rows = await admin.fetch("select payload, mac from orchestrator.event order by sequence")
    assert [row["mac"] for row in rows] == list(macs(LOG_KEY, START, [row["payload"] for row in rows]))
