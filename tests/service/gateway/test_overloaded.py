"""A replica with too much to do behind Envoy: it answers late, and is not taken for one that is gone."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiohttp
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health

from agentnet.cost.v1 import cost_service_pb2 as pb
from agentnet.cost.v1 import cost_service_pb2_grpc as rpc
from deploy.local.state import State
from shared.errors import MeshError
from shared.rpc.status import from_rpc
from tests.support.edge import inputs_of, running_envoy
from tests.support.valkey import free_port

Code = grpc.StatusCode
PATIENCE = 0.2
BUSY = 2.5  # two checks of that patience, a second apart, have failed long before


@dataclass
class Replica:
    """A server of nothing but health, in a thread and on a loop of its own, which can be kept busy."""

    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    port: Future[int] = field(default_factory=Future)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def run(self) -> None:
        self.loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        server, serving = grpc.aio.server(), health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(serving, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        await serving.set("", health_pb2.HealthCheckResponse.SERVING)
        self.port.set_result(port)
        await self.stopping.wait()
        await server.stop(None)

    def keep_busy(self, seconds: float) -> None:
        self.loop.call_soon_threadsafe(time.sleep, seconds)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.stopping.set)


@dataclass(frozen=True)
class Way:
    """A call to the replica through the internal listener, and what Envoy counts."""

    replica: Replica
    stub: rpc.CostServiceStub
    admin: Path

    async def answer(self) -> MeshError:
        """Of a method the replica does not have: UNIMPLEMENTED says that it answered."""
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await self.stub.SetBudget(pb.SetBudgetRequest(), timeout=10)
        return from_rpc(raised.value)

    async def healthy(self) -> int:
        connector = aiohttp.UnixConnector(str(self.admin))
        async with aiohttp.ClientSession(connector=connector) as session:
            asked = "http://envoy/stats?filter=^cluster.cost.membership_healthy"
            async with session.get(asked) as said:
                return int((await said.text()).rpartition(":")[2] or 0)

    async def until_healthy(self, wanted: int) -> None:
        async with asyncio.timeout(10):
            while await self.healthy() != wanted:
                await asyncio.sleep(0.05)


@pytest.fixture
async def way(tmp_path: Path) -> AsyncIterator[Way]:
    async with _behind_envoy(tmp_path) as found:
        await found.until_healthy(1)
        yield found


@asynccontextmanager
async def _behind_envoy(folder: Path) -> AsyncIterator[Way]:
    replica = Replica()
    thread = threading.Thread(target=replica.run)
    thread.start()
    state, internal, admin = State(folder / "state"), free_port(), folder / "admin"
    state.prepare()
    inputs = inputs_of(state, f"127.0.0.1:{replica.port.result(10)}", edge=free_port(), internal=internal)
    try:
        async with (
            running_envoy(replace(inputs, health_seconds=PATIENCE, admin_socket=admin), folder),
            grpc.aio.insecure_channel(f"127.0.0.1:{internal}") as channel,
        ):
            await channel.channel_ready()
            yield Way(replica, rpc.CostServiceStub(channel), admin)
    finally:
        replica.stop()
        await asyncio.to_thread(thread.join)


async def test_a_replica_that_is_too_busy_for_its_health_checks_is_called_all_the_same(way: Way) -> None:
    way.replica.keep_busy(BUSY)
    await way.until_healthy(0)
    assert (await way.answer()).code is Code.UNIMPLEMENTED
    await way.until_healthy(1)


async def test_a_replica_that_is_gone_is_told_at_once(way: Way) -> None:
    way.replica.stop()
    await way.until_healthy(0)
    began = time.monotonic()
    told = await way.answer()
    assert (told.code, told.reason_name) == (Code.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE")
    assert told.message == "a service this call needs does not answer; try again in a moment"
    assert time.monotonic() - began < 1
