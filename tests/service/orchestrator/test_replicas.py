"""Two real replicas on real stores: one dies in the middle of a turn, and nobody who reads can tell where."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from agentnet.orchestrator.v1 import history_service_pb2 as history
from agentnet.orchestrator.v1 import history_service_pb2_grpc as history_rpc
from agentnet.orchestrator.v1 import session_service_pb2 as pb
from agentnet.orchestrator.v1 import session_service_pb2_grpc as rpc
from deploy.local.postgres import Cluster
from shared.identity import CredentialKind
from tests.support.postgres import postgres
from tests.support.replicas import Replica, Site, SlowModel, site
from tests.support.valkey import valkey_url

pytestmark = pytest.mark.heavy

__all__ = ("postgres", "valkey_url")

Shared = tuple[Site, SlowModel]


@pytest.fixture
async def shared(tmp_path: Path, postgres: Cluster, valkey_url: str) -> AsyncIterator[Shared]:
    dsn, driver_dsn = postgres.dsn("orchestrator"), postgres.dsn("orchestrator_driver")
    async with site(tmp_path, dsn=dsn, driver_dsn=driver_dsn, redis_url=valkey_url, words=150, pause=0.02) as found:
        yield found


class Reader:
    """Watches by one replica after another; keeps the bytes and when they came."""

    def __init__(self, keys: Any, session_id: str) -> None:
        self.keys = keys
        self.session_id = session_id
        self.seen: list[Any] = []
        self.longest_silence = 0.0

    async def read(self, replica: Replica, *, until: int | None = None) -> None:
        """Reads on from the last event seen, until so many were seen or the log or the connection ends."""
        heard_at = time.monotonic()
        after = self.seen[-1].sequence if self.seen else 0
        request = pb.WatchSessionRequest(session_id=self.session_id, after_sequence=after)
        async with grpc.aio.insecure_channel(replica.address) as channel:
            call = rpc.SessionServiceStub(channel).WatchSession(request, metadata=self.keys.metadata(), timeout=60)
            async for answer in call:
                if answer.HasField("event"):
                    self.longest_silence = max(self.longest_silence, time.monotonic() - heard_at)
                    heard_at = time.monotonic()
                    self.seen.append(answer.event)
                if until and len(self.seen) >= until:
                    return

    @property
    def kinds(self) -> list[str]:
        return [event.WhichOneof("payload") for event in self.seen]

    @property
    def text(self) -> str:
        return "".join(event.tokens_produced.text for event in self.seen)


async def start(shared: Shared, replica: Replica, **asked: Any) -> Reader:
    keys = shared[0].keys
    request = pb.StartSessionRequest(**({"topic": "Failover", "agents": ["Athena"], "mode": "single"} | asked))
    async with grpc.aio.insecure_channel(replica.address) as channel:
        answer = await rpc.SessionServiceStub(channel).StartSession(request, metadata=keys.metadata(), timeout=10)
    return Reader(keys, answer.session.id)


def check_whole(reader: Reader, model: SlowModel) -> None:
    assert [event.sequence for event in reader.seen] == list(range(1, len(reader.seen) + 1))
    assert reader.text == model.text
    assert reader.kinds[-1] == "session_finished"
    assert reader.kinds.count("turn_finished") == 1


async def test_a_kill_in_the_middle_of_a_turn_is_bridged_by_another_replica(shared: Shared) -> None:
    where, model = shared
    async with where.replica("one") as one, where.replica("two") as two:
        with two.frozen():
            reader = await start(shared, one)
            await reader.read(one, until=5)
        await reader.read(one, until=30)
        one.kill()
        await reader.read(two)
        again = Reader(where.keys, reader.session_id)
        await again.read(two)

    check_whole(reader, model)
    assert again.seen == reader.seen
    assert "session_taken_over" in reader.kinds
    assert "turn_interrupted" not in reader.kinds
    assert len(model.started) == 1
    assert reader.longest_silence < 5


async def test_a_terminated_replica_hands_over_at_once(shared: Shared) -> None:
    where, model = shared
    async with where.replica("one") as one, where.replica("two") as two:
        with two.frozen():
            reader = await start(shared, one)
            await reader.read(one, until=5)
        await reader.read(one, until=30)
        assert await one.terminate() == 0
        await reader.read(two)

    check_whole(reader, model)
    assert "session_taken_over" not in reader.kinds
    assert len(model.started) == 1
    assert reader.longest_silence < 2


async def test_a_restarted_replica_goes_on_with_what_it_left(shared: Shared) -> None:
    where, model = shared
    async with where.replica("one") as one:
        reader = await start(shared, one)
        await reader.read(one, until=30)
        one.kill()
    async with where.replica("one again") as one:
        await reader.read(one)

    check_whole(reader, model)
    assert len(model.started) == 1


async def test_a_generation_that_is_lost_too_is_a_recorded_second_try(shared: Shared) -> None:
    where, model = shared
    async with where.replica("one") as one:
        reader = await start(shared, one)
        await reader.read(one, until=20)
        one.kill()
        model.started.clear()
    async with where.replica("two") as two:
        await reader.read(two)

    (turn,) = [event.turn_finished.turn for event in reader.seen if event.HasField("turn_finished")]
    assert [event.sequence for event in reader.seen] == list(range(1, len(reader.seen) + 1))
    assert (turn.attempt, turn.content) == (2, model.text)
    assert reader.kinds.count("turn_interrupted") == 1


async def test_the_orchestrator_calls_for_whoever_started_the_session(shared: Shared) -> None:
    where, model = shared
    async with where.replica("one") as one:
        reader = await start(shared, one)
        await reader.read(one)

    assert {(caller.tenant_id, caller.subject, caller.kind) for caller in model.callers} == {
        ("acme", "ada", CredentialKind.SERVICE)
    }


async def test_two_replicas_share_many_sessions_and_repeat_none(shared: Shared) -> None:
    where, model = shared
    model.words = 10
    async with where.replica("one") as one, where.replica("two") as two:
        readers = await asyncio.gather(*(start(shared, one) for _ in range(20)))
        await asyncio.gather(*(reader.read(two) for reader in readers))

    for reader in readers:
        check_whole(reader, model)
    assert len(model.started) == 20


async def killed_at(shared: Shared, at: int, victim: Replica, heir: Replica) -> Reader:
    """A session whose owner is killed once so many of its events were read, read to its end."""
    where, model = shared
    paid = len(model.started)
    with heir.frozen():
        reader = await start(shared, victim, agents=["Athena", "Apollo"], mode="brainstorm", max_rounds=1)
        await reader.read(victim, until=at)
    victim.kill()
    await reader.read(heir)
    assert [event.sequence for event in reader.seen] == list(range(1, len(reader.seen) + 1)), at
    turns = [event.turn_finished.turn for event in reader.seen if event.HasField("turn_finished")]
    assert [turn.agent.partition("@")[0] for turn in turns] == ["Athena", "Apollo"], at
    assert {turn.content for turn in turns} == {model.text}, at
    assert (reader.kinds[-1], len(model.started) - paid) == ("session_finished", 2), f"{at}: a turn was paid for twice"
    request = history.ReplaySessionRequest(session_id=reader.session_id)
    async with grpc.aio.insecure_channel(heir.address) as channel:
        stub = history_rpc.HistoryServiceStub(channel)
        assert (await stub.ReplaySession(request, metadata=where.keys.metadata(), timeout=30)).identical, at
    return reader


@pytest.mark.timeout(1200)
async def test_fifty_kills_each_at_an_event_of_its_own_end_as_an_undisturbed_replay(shared: Shared) -> None:
    where, model = shared
    model.words, model.pause = 25, 0.01
    events = 2 * model.words + 6
    places = random.Random(50).sample(range(1, events), 50)
    taken_over = []
    async with AsyncExitStack() as replicas:
        server = await replicas.enter_async_context(where.forking())
        one = await replicas.enter_async_context(where.fork(server, "first"))
        for at in places:
            two = await replicas.enter_async_context(where.fork(server, f"after-{at}"))
            reader = await killed_at(shared, at, one, two)
            taken_over += [reader] if "session_taken_over" in reader.kinds else []
            one = two
    assert len(taken_over) > 25
    assert max(reader.longest_silence for reader in taken_over) < 5


async def test_fifty_sessions_of_a_killed_replica_each_at_another_event_end_whole_and_pay_once(shared: Shared) -> None:
    where, model = shared
    model.words = 200
    async with where.replica("one") as one, where.replica("two") as two:
        with two.frozen():
            readers = [await start(shared, one) for _ in range(50)]
            await readers[-1].read(one, until=5)
            await asyncio.gather(*(reader.read(one, until=3) for reader in readers))
            one.kill()
        died = {len(reader.seen) for reader in readers}
        await asyncio.gather(*(reader.read(two) for reader in readers))

    for reader in readers:
        check_whole(reader, model)
    taken_over = [reader for reader in readers if "session_taken_over" in reader.kinds]
    assert len(taken_over) > 25
    assert died
    assert len(model.started) == 50
    assert max(reader.longest_silence for reader in taken_over) < 5
