"""What a run may rely on, whichever driver keeps track of it: the same cases on leases alone and on a real Temporal."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowExecutionStatus

from agentnet.orchestrator.v1 import event_pb2, session_pb2, task_graph_pb2
from shared.errors import MeshError, Unavailable
from tests.support.drivers import Drivers
from tests.support.graphs import node
from tests.support.orchestrator import ADA, TENANT, TTL, Watching, World
from tests.support.temporal import temporal_address, temporal_client

__all__ = ("temporal_address",)

pytestmark = pytest.mark.timeout(60)
DONE = session_pb2.SESSION_STATUS_COMPLETED


@pytest.fixture(params=["postgres", pytest.param("temporal", marks=pytest.mark.heavy)])
def drivers(request: pytest.FixtureRequest) -> Drivers:
    return Drivers(request.getfixturevalue("temporal_address") if request.param == "temporal" else None)


async def found(world: World, session_id: str) -> session_pb2.Session:
    session = await world.store.find(TENANT, session_id)
    assert session is not None
    return session


async def ended(world: World, session_id: str) -> session_pb2.Session:
    """The session when its log has ended; every effect that was reserved happened, once."""
    async with asyncio.timeout(30):
        while (session := await found(world, session_id)).status not in (DONE, *_BROKEN):
            await asyncio.sleep(0.01)
    log = await world.log(session_id)
    assert [event.sequence for event in log] == list(range(1, len(log) + 1))
    asked = Counter(utterance.generation_id for utterance in world.inference.started)
    assert set(asked.values()) <= {1}, "an effect happened twice"
    assert (await world.store.check_chain(TENANT, session_id)).intact
    return session


_BROKEN = (session_pb2.SESSION_STATUS_FAILED, session_pb2.SESSION_STATUS_CANCELLED)


async def until(world: World, session_id: str, status: session_pb2.SessionStatus.ValueType) -> None:
    async with asyncio.timeout(20):
        while (await found(world, session_id)).status != status:
            await asyncio.sleep(0.01)


async def test_a_session_runs_to_its_end(drivers: Drivers) -> None:
    world = World()
    async with drivers.replica(world):
        session = await ended(world, await world.start(max_rounds=2))
    assert (session.status, session.rounds_executed) == (DONE, 2)
    assert len(world.inference.started) == 4


async def test_turns_side_by_side_run_side_by_side(drivers: Drivers) -> None:
    world = World()
    world.inference.held_at = 2
    async with drivers.replica(world):
        session_id = await world.start(strategy="parallel", max_rounds=1)
        async with asyncio.timeout(20):
            while len(world.inference.started) < 2:
                await asyncio.sleep(0.01)
        world.inference.release()
        assert (await ended(world, session_id)).status == DONE


async def test_a_graph_runs_to_its_end(drivers: Drivers) -> None:
    world = World()
    async with drivers.replica(world):
        kept = await world.execute(node("a"), node("b", "a"), node("c", "a"), node("d", "b", "c"))
        assert (await ended(world, kept.session.id)).status == DONE
    shown = await world.graphs.shown(TENANT, kept.graph.id)
    assert [result.node_id for result in shown.results][-1] == "d"
    assert len(world.inference.started) == 4


async def test_many_runs_of_both_kinds_end_and_share_a_replica_that_takes_few_at_once(drivers: Drivers) -> None:
    world = World()
    async with drivers.replica(world, limit=6):
        sessions = [await world.start(max_rounds=1) for _ in range(6)]
        graphs = [await world.execute(node("a"), node("b", "a")) for _ in range(6)]
        for session_id in (*sessions, *(kept.session.id for kept in graphs)):
            assert (await ended(world, session_id)).status == DONE


async def test_a_session_waits_and_goes_on_when_it_is_told_to(drivers: Drivers) -> None:
    world = World()
    async with drivers.replica(world):
        session_id = await world.start(max_rounds=2, manual_advance=True)
        await until(world, session_id, session_pb2.SESSION_STATUS_WAITING)
        await world.signal(session_id, "advance")
        assert (await ended(world, session_id)).rounds_executed == 2


async def test_a_graph_is_paused_and_resumed(drivers: Drivers) -> None:
    world = World()
    world.inference.held_at = 3
    async with drivers.replica(world):
        kept = await world.execute(node("a"), node("b", "a"))
        await Watching(world, kept.session.id).until(3)
        await world.signal(kept.session.id, "pause")
        world.inference.release()
        await until(world, kept.session.id, session_pb2.SESSION_STATUS_PAUSED)
        assert len(world.inference.started) == 1
        await world.signal(kept.session.id, "resume")
        assert (await ended(world, kept.session.id)).status == DONE


async def test_a_cancel_reaches_a_turn_in_flight(drivers: Drivers) -> None:
    world = World()
    world.inference.held_at = 3
    async with drivers.replica(world):
        session_id = await world.start()
        await Watching(world, session_id).until(3)
        await world.signal(session_id, "cancel")
        session = await ended(world, session_id)
    assert session.stop_reason == session_pb2.STOP_REASON_CANCELLED
    assert world.inference.cancelled == [utterance.generation_id for utterance in world.inference.started]
    broken = [event.turn_interrupted for event in await world.log(session_id) if event.HasField("turn_interrupted")]
    assert [(one.cost.micros_usd, one.usage.output_tokens) for one in broken] == [(3, 1)]
    assert (session.cost_micros_usd, session.usage.output_tokens) == (3, 1)


async def test_a_subtree_is_cancelled_and_the_rest_of_its_graph_goes_on(drivers: Drivers) -> None:
    world = World()
    world.inference.held_at = 3
    async with drivers.replica(world):
        kept = await world.execute(node("a"), node("a2", "a"), node("b"), node("b2", "b"))
        await Watching(world, kept.session.id).until(5)
        await world.graphs.cancel(ADA, kept.graph.id, "a2", request_id=None)
        async with asyncio.timeout(20):
            while "task_finished" not in await world.kinds(kept.session.id):
                await asyncio.sleep(0.01)
        world.inference.release()
        await ended(world, kept.session.id)
    shown = await world.graphs.shown(TENANT, kept.graph.id)
    statuses = {result.node_id: result.status for result in shown.results}
    assert statuses.pop("a2") == task_graph_pb2.TASK_STATUS_CANCELLED
    assert set(statuses.values()) == {task_graph_pb2.TASK_STATUS_COMPLETED}


async def test_a_replica_that_drains_hands_over_what_is_in_flight(drivers: Drivers) -> None:
    world = World()
    world.inference.held_at = 3
    session_id = await world.start()
    async with drivers.replica(world, "one"):
        await Watching(world, session_id).until(3)
    async with drivers.replica(world, "two"):
        world.inference.release()
        assert (await ended(world, session_id)).status == DONE
    assert "session_taken_over" not in await world.kinds(session_id)
    assert len(world.inference.started) == 4


@pytest.mark.parametrize("kind", ["session", "graph"])
async def test_what_a_replica_had_in_flight_when_it_crashed_is_gone_on_with_and_not_paid_twice(
    drivers: Drivers, kind: str
) -> None:
    world = World()
    world.inference.held_at = 3
    if kind == "session":
        session_id = await world.start(max_rounds=2)
    else:
        session_id = (await world.execute(node("a"), node("b"), node("c", "a", "b"), node("d", "c"))).session.id
    async with drivers.replica(world, "one") as one, drivers.replica(world, "two") as two:
        await Watching(world, session_id).until(3)
        home, other = (one, two) if session_id in one.driven() else (two, one)
        assert session_id not in other.driven()
        await home.crash()
        world.inference.release()
        assert (await ended(world, session_id)).status == DONE
    assert "session_taken_over" in await world.kinds(session_id)
    assert "turn_interrupted" not in await world.kinds(session_id)
    assert len(world.inference.started) == 4


async def test_a_store_that_is_away_for_a_moment_costs_time_and_nothing_else(drivers: Drivers) -> None:
    world = World()
    away: list[MeshError] = [Unavailable("the database does not answer")]
    append = world.store.append

    async def refused_once(*given: object, **more: object) -> int:
        if away and len(world.inference.started) == 2:
            raise away.pop()
        return await append(*given, **more)  # type: ignore[arg-type] # as they came

    world.store.append = refused_once  # type: ignore[method-assign] # a store that fails once
    async with drivers.replica(world):
        session_id = await world.start(max_rounds=2)
        async with asyncio.timeout(20):
            while away:
                await asyncio.sleep(0.01)
        world.clock.advance(TTL * 2)
        assert (await ended(world, session_id)).status == DONE
    assert len(world.inference.started) == 4


async def test_a_run_that_kills_whoever_drives_it_is_set_aside(drivers: Drivers) -> None:
    world = World()
    world.inference.held_at = 3
    session_id = (await world.execute(node("a"))).session.id
    for number in range(6):
        async with drivers.replica(world, f"replica {number}") as replica:
            async with asyncio.timeout(20):
                while session_id not in replica.driven():
                    await asyncio.sleep(0.01)
                while (await world.kinds(session_id)).count(
                    "session_taken_over"
                ) < number or not world.inference.started:
                    await asyncio.sleep(0.01)
            await replica.crash()
    async with drivers.replica(world, "last"):
        session = await ended(world, session_id)
    assert session.stop_reason == session_pb2.STOP_REASON_POISONED
    assert len(world.inference.started) == 1


async def test_the_log_is_what_the_other_driver_would_have_written(temporal_address: str) -> None:
    logs: list[list[event_pb2.SessionEvent]] = []
    for drivers in (Drivers(), Drivers(temporal_address)):
        world = World()
        async with drivers.replica(world):
            session_id = await world.start(max_rounds=2)
            await ended(world, session_id)
        logs.append(await world.log(session_id))
    for event in (*logs[0], *logs[1]):
        event.trace_id = ""  # where spans are kept, each run has a trace of its own
    assert logs[0] == logs[1]


@pytest.mark.heavy
async def test_a_workflow_is_continued_as_a_new_one_before_its_history_is_long_and_its_turns_go_on(
    temporal_address: str,
) -> None:
    world = World()
    drivers = Drivers(temporal_address, longest_history=50)
    chain = [node(f"n{place}", *([f"n{place - 2}"] if place > 1 else [])) for place in range(40)]
    async with drivers.replica(world):
        kept = await world.execute(*chain)
        assert (await ended(world, kept.session.id)).status == DONE
        histories = await _histories(temporal_address, drivers.queue)
    assert len(histories) > 2
    assert max(len(history) for history in histories) < 100
    assert len(world.inference.started) == 40
    assert "session_taken_over" not in await world.kinds(kept.session.id)


@pytest.mark.heavy
async def test_what_was_asked_and_said_is_never_in_temporals_history_however_long(temporal_address: str) -> None:
    world = World()
    word = "überraschend"
    world.inference.reply = lambda utterance: (f"{word} " * 2)[:-1] + "." * 3_000_000
    drivers = Drivers(temporal_address)
    async with drivers.replica(world):
        kept = await world.execute(node("a"), node("b", "a"))
        assert (await ended(world, kept.session.id)).status == DONE
        (history,) = await _histories(temporal_address, drivers.queue)
    assert all(event.ByteSize() < 4096 for event in history)
    assert word.encode() not in b"".join(event.SerializeToString() for event in history)


@pytest.mark.heavy
async def test_a_run_whose_workflow_was_terminated_gets_a_new_one(temporal_address: str) -> None:
    world = World()
    world.inference.held_at = 3
    drivers = Drivers(temporal_address)
    async with drivers.replica(world) as replica:
        session_id = await world.start(max_rounds=1)
        await Watching(world, session_id).until(3)
        client = await temporal_client(temporal_address)
        await client.get_workflow_handle(f"{drivers.queue}/{TENANT}/{session_id}").terminate("by an operator")
        await replica.crash()
        world.clock.advance(TTL * 2)
    async with drivers.replica(world, "two"):
        world.inference.release()
        assert (await ended(world, session_id)).status == DONE
    assert len(world.inference.started) == 2


async def _histories(address: str, queue: str) -> list[list[HistoryEvent]]:
    """The events of every workflow that ended or continued."""
    client = await temporal_client(address)
    async with asyncio.timeout(20):
        while True:
            found = [one async for one in client.list_workflows(f"TaskQueue = '{queue}'")]
            if found and all(one.status != WorkflowExecutionStatus.RUNNING for one in found):
                break
            await asyncio.sleep(0.1)
    handles = [client.get_workflow_handle(one.id, run_id=one.run_id) for one in found]
    return [list((await handle.fetch_history()).events) for handle in handles]
