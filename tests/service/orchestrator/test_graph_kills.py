"""Real replicas on real stores, killed with -9 in the middle of a graph; a Postgres that goes away and comes back."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest

from agentnet.orchestrator.v1 import (
    session_service_pb2,
    session_service_pb2_grpc,
    task_graph_pb2,
    task_graph_service_pb2_grpc,
)
from agentnet.orchestrator.v1 import task_graph_service_pb2 as pb
from deploy.local.postgres import Cluster
from tests.support.cuts import network
from tests.support.graphs import node
from tests.support.postgres import postgres
from tests.support.replicas import Replica, Site, SlowModel, site
from tests.support.temporal import temporal_address
from tests.support.valkey import free_port, running_valkey, valkey_url

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]

__all__ = ("postgres", "temporal_address", "valkey_url")

Shared = tuple[Site, SlowModel]
TWELVE = [
    node("root"), node("a", "root"), node("b", "root"), node("c", "root"), node("a2", "a"), node("a3", "a2"),
    node("b2", "b"), node("c2", "c"), node("join", "b2", "c2"), node("d", "c"), node("all", "a3", "join", "d"), node("end", "all"),
]  # fmt: skip


@pytest.fixture(params=["postgres", "temporal"])
def driver(request: pytest.FixtureRequest) -> str | None:
    """Temporal's address when it is to drive."""
    return request.getfixturevalue("temporal_address") if request.param == "temporal" else None


@pytest.fixture
async def shared(tmp_path: Path, postgres: Cluster, valkey_url: str, driver: str | None) -> AsyncIterator[Shared]:
    dsns = {"dsn": postgres.dsn("orchestrator"), "driver_dsn": postgres.dsn("orchestrator_driver")}
    async with site(tmp_path, **dsns, redis_url=valkey_url, words=8, pause=0.01, temporal=driver) as found:
        yield found


class Watcher:
    """Reads a graph's log by one replica after another, and how long nothing came."""

    def __init__(self, keys: Any, session_id: str, nodes: Sequence[task_graph_pb2.TaskNode]) -> None:
        self.keys, self.session_id, self.nodes = keys, session_id, nodes
        self.seen: list[Any] = []
        self.longest_silence = 0.0

    async def read(self, replica: Replica, *, until: int | None = None) -> None:
        """Reads on to the end, or until so many nodes have ended."""
        heard_at = time.monotonic()
        after = self.seen[-1].sequence if self.seen else 0
        request = session_service_pb2.WatchSessionRequest(session_id=self.session_id, after_sequence=after)
        async with grpc.aio.insecure_channel(replica.address) as channel:
            stub = session_service_pb2_grpc.SessionServiceStub(channel)
            async for answer in stub.WatchSession(request, metadata=self.keys.metadata(), timeout=300):
                if answer.HasField("event"):
                    self.longest_silence = max(self.longest_silence, time.monotonic() - heard_at)
                    heard_at = time.monotonic()
                    self.seen.append(answer.event)
                    if until is not None and self.ended == until:
                        return

    @property
    def ended(self) -> int:
        return sum(event.HasField("task_finished") for event in self.seen)

    def check(self, model: SlowModel, *, tries: int = 0) -> None:
        """Every node ended once and well, every effect happened once, and the log has no gap. With `tries`, so many at
        most were reserved: who was not reached did nothing.
        """
        assert [event.sequence for event in self.seen] == list(range(1, len(self.seen) + 1))
        assert self.seen[-1].WhichOneof("payload") == "session_finished"
        results = [event.task_finished.result for event in self.seen if event.HasField("task_finished")]
        assert Counter(result.node_id for result in results) == Counter(entry.id for entry in self.nodes)
        assert {result.status for result in results} == {task_graph_pb2.TASK_STATUS_COMPLETED}
        assert {result.output for result in results} == {model.text}
        reserved = [event.task_started.turn_id for event in self.seen if event.HasField("task_started")]
        if tries:
            assert len(self.nodes) <= len(reserved) <= tries
        else:
            assert len(reserved) == len(self.nodes)
            assert set(reserved) <= set(model.started)


async def execute(shared: Shared, replica: Replica, nodes: Sequence[task_graph_pb2.TaskNode] = TWELVE) -> Watcher:
    keys = shared[0].keys
    request = pb.ExecuteTasksRequest(nodes=nodes)
    async with grpc.aio.insecure_channel(replica.address) as channel:
        stub = task_graph_service_pb2_grpc.TaskGraphServiceStub(channel)
        answer = await stub.ExecuteTasks(request, metadata=keys.metadata(), timeout=60)
    return Watcher(keys, answer.session_id, nodes)


@pytest.mark.parametrize("ended", range(12))
async def test_a_kill_between_steps_is_taken_over_within_five_seconds_and_nothing_is_repeated(
    shared: Shared, ended: int
) -> None:
    where, model = shared
    async with where.replica("one") as one:
        watcher = await execute(shared, one)
        await watcher.read(one, until=ended)
        async with where.replica("two") as two:
            one.kill()
            await watcher.read(two)

    watcher.check(model)
    assert len(model.started) == 12, "nothing was asked for twice"
    assert watcher.longest_silence < 5


GRAPHS = 200
# Each in a test of its own, since Temporal's development server takes minutes for as many.
SLICES = 8


def _bigger(chance: random.Random) -> list[task_graph_pb2.TaskNode]:
    return [node(f"n{place}", *{f"n{chance.randrange(place)}" for _ in range(2) if place}) for place in range(16)]


@pytest.mark.parametrize("part", range(SLICES))
async def test_two_hundred_graphs_each_at_another_point_when_their_replica_is_killed_end_whole_and_pay_once(
    shared: Shared, postgres: Cluster, part: int
) -> None:
    where, model = shared
    chance = random.Random(part)
    async with where.replica("one") as one, where.replica("two") as two:
        with two.frozen():
            watchers = await asyncio.gather(*(execute(shared, one, _bigger(chance)) for _ in range(GRAPHS // SLICES)))
            await watchers[-1].read(one, until=chance.randrange(2, 8))
            one.kill()
        at = await _ended_nodes(postgres, watchers)
        assert len(set(at)) > 2, "at other points"
        assert min(at) < 16, "and not at its end"
        async with asyncio.timeout(400):
            await asyncio.gather(*(watcher.read(two) for watcher in watchers))
    for watcher in watchers:
        watcher.check(model)
    reserved = [event.task_started.turn_id for watcher in watchers for event in watcher.seen]
    assert sorted(filter(None, reserved)) == sorted(model.started), "every effect once, and none that is not in a log"


async def _ended_nodes(cluster: Cluster, watchers: Sequence[Watcher]) -> list[int]:
    admin = await asyncpg.connect(cluster.dsn("postgres"))
    try:
        counted = "select count(*) from orchestrator.event where session_id = $1 and kind = 'task_finished'"
        return [await admin.fetchval(counted, watcher.session_id) for watcher in watchers]
    finally:
        await admin.close()


async def test_three_kills_in_one_graph_change_nothing_but_the_owners(shared: Shared) -> None:
    where, model = shared
    model.pause = 0.2  # so slow that each owner dies in the middle
    async with where.replica("first") as first:
        watcher = await execute(shared, first)
        await watcher.read(first, until=2)
        first.kill()
    for name, ended in (("second", 5), ("third", 8)):
        async with where.replica(name) as replica:
            await watcher.read(replica, until=ended)
            replica.kill()
    async with where.replica("last") as last:
        await watcher.read(last)

    watcher.check(model)
    assert sum(event.HasField("session_taken_over") for event in watcher.seen) == 3


async def test_a_postgres_that_restarts_in_the_middle_costs_time_and_nothing_else(
    shared: Shared, postgres: Cluster
) -> None:
    where, model = shared
    async with where.replica("one") as one:
        watcher = await execute(shared, one)
        await watcher.read(one, until=3)
        await _crash(postgres)
        while watcher.seen[-1].WhichOneof("payload") != "session_finished":
            with suppress(grpc.aio.AioRpcError):
                await watcher.read(one)
            await asyncio.sleep(0.1)

    watcher.check(model)


async def test_a_network_that_is_cut_between_and_in_the_middle_of_streams_costs_time_and_nothing_else(
    shared: Shared, tmp_path: Path
) -> None:
    where, model = shared
    model.pause = 0.08
    async with network(tmp_path, where.mesh_address) as way:
        where.mesh_address = way.address
        async with where.replica("one") as one:
            watcher = await execute(shared, one)
            await watcher.read(one, until=3)
            await way.cut()
            await asyncio.sleep(2)
            await way.mend()
            await watcher.read(one)
        assert await way.aborted() > 0

    watcher.check(model, tries=24)
    assert len(model.started) == 12, "nothing was asked for twice"


async def test_a_redis_that_goes_away_for_good_in_the_middle_costs_live_tails_and_nothing_else(
    tmp_path: Path, postgres: Cluster, driver: str | None
) -> None:
    dsn, driver_dsn = postgres.dsn("orchestrator"), postgres.dsn("orchestrator_driver")
    (tmp_path / "redis").mkdir()
    with ExitStack() as stack:
        redis_url = stack.enter_context(running_valkey(tmp_path / "redis", free_port()))
        stores = {"dsn": dsn, "driver_dsn": driver_dsn, "redis_url": redis_url}
        async with site(tmp_path, **stores, words=8, pause=0.05, temporal=driver) as shared:
            where, model = shared
            async with where.replica("one") as one:
                watcher = await execute(shared, one)
                await watcher.read(one, until=4)
                stack.close()
                while watcher.seen[-1].WhichOneof("payload") != "session_finished":
                    with suppress(grpc.aio.AioRpcError):
                        await watcher.read(one)
                    await asyncio.sleep(0.1)

    watcher.check(model)


async def _crash(cluster: Cluster) -> None:
    """Kills one server process with -9: Postgres then ends all others, replays its log and comes up again."""
    admin = await asyncpg.connect(cluster.dsn("postgres"))
    os.kill(await admin.fetchval("select pg_backend_pid()"), signal.SIGKILL)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await admin.fetchval("select 1")
    admin.terminate()
    while not await cluster.ready():
        await asyncio.sleep(0.05)
