"""Postgres and cost are killed while a synthetic provider delivers: the ledger has every token, once."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from agentnet.common.v1 import usage_pb2
from agentnet.cost.v1 import cost_service_pb2 as pb
from agentnet.cost.v1 import cost_service_pb2_grpc as rpc
from deploy.local.postgres import Cluster
from deploy.local.state import State, free_port
from shared.migrate import migrate, migrations
from tests.support.identity import Keys, make_keys

pytestmark = pytest.mark.heavy

STREAMS = 150
Code = grpc.StatusCode
RETRIED = (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.INTERNAL, Code.UNKNOWN, Code.CANCELLED)  # of a killed server


class Processes:
    """Postgres and one replica of cost, started and killed at will."""

    def __init__(self, folder: Path) -> None:
        state = State(folder / "state")
        state.prepare()
        self.cluster = Cluster(state, port=free_port())
        self.address = f"127.0.0.1:{free_port()}"
        self.keys = make_keys(folder)
        self.folder = folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    async def postgres(self) -> None:
        """Until it answers. It does not start while children of the killed one still hold its memory."""

        async def started() -> bool:
            if "postgres" not in self.running or self.running["postgres"].poll() is not None:
                with (self.folder / "postgres.log").open("ab") as log:
                    self.running["postgres"] = subprocess.Popen(self.cluster.command(), stdout=log, stderr=log)
            return await self.cluster.ready()

        await until(started)

    def cost(self) -> None:
        settings = {
            "AGENTNET_COST_POSTGRES_DSN": self.cluster.dsn("cost"),
            "AGENTNET_COST_LISTEN": self.address,
            "AGENTNET_COST_IDENTITY_KEYS": str(self.keys.jwks),
        }
        with (self.folder / "cost.log").open("ab") as log:
            command = (sys.executable, "-m", "services.cost")
            self.running["cost"] = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | settings)

    async def kill(self, name: str) -> None:
        """SIGKILL, for Postgres to all its processes; then it runs again."""
        if name == "postgres":
            server = int((self.cluster.data / "postmaster.pid").read_text().splitlines()[0])
            children = [int(one) for one in Path(f"/proc/{server}/task/{server}/children").read_text().split()]
            for pid in (server, *children):
                os.kill(pid, signal.SIGKILL)
        else:
            self.running[name].kill()
        self.running[name].wait()
        if name == "postgres":
            await self.postgres()

    async def supervise(self) -> None:
        """Starts cost, and again whenever it has ended: it does when it starts while Postgres is away."""
        while True:
            if "cost" not in self.running or self.running["cost"].poll() is not None:
                self.cost()
            await asyncio.sleep(0.1)


async def until(ready: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not await ready():
            await asyncio.sleep(0.05)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    found = Processes(tmp_path)
    found.cluster.initialise()
    yield found
    for process in found.running.values():
        process.kill()
        process.wait()


class Caller:
    """inference as cost sees it: asks again until it is answered."""

    def __init__(self, address: str, keys: Keys) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=[("grpc.max_reconnect_backoff_ms", 200)])
        self._stub = rpc.CostServiceStub(self._channel)
        self._metadata = keys.metadata()
        self.delivered = 0

    async def stream(self, number: int, chance: random.Random) -> None:
        """One generation: a lease, tokens, a settlement."""
        await asyncio.sleep(chance.random() * 6)
        call = {"generation_id": f"g{number}", "provider": "synthetic", "model": "any", "session_id": f"s{number % 7}"}
        await self.until_answered(self._stub.Reserve, pb.ReserveRequest(**call, output_tokens=64))
        produced = chance.randrange(1, 2000)
        usage = usage_pb2.Usage(input_tokens=7, output_tokens=produced)
        await self.until_answered(self._stub.Settle, pb.SettleRequest(**call, usage=usage))
        self.delivered += produced

    async def until_answered(self, method: Any, request: Any) -> Any:
        while True:
            try:
                return await method(request, metadata=self._metadata, timeout=5)
            except grpc.aio.AioRpcError as error:
                if error.code() not in RETRIED:
                    raise
                await asyncio.sleep(0.1)

    async def total(self) -> pb.CostSummary:
        answer = await self.until_answered(self._stub.SummarizeCost, pb.SummarizeCostRequest())
        (found,) = answer.summaries
        return found

    async def close(self) -> None:
        await self._channel.close()


async def test_the_ledger_has_every_delivered_token_once_after_kills(processes: Processes) -> None:
    await processes.postgres()
    await processes.cluster.bootstrap()
    await migrate(processes.cluster.dsn("owner"), migrations())
    supervisor = asyncio.create_task(processes.supervise())
    caller, chance = Caller(processes.address, processes.keys), random.Random(3)
    await caller.until_answered(
        rpc.CostServiceStub(caller._channel).SetBudget, pb.SetBudgetRequest(limit_micros_usd=10**9)
    )
    streams = asyncio.gather(*(caller.stream(number, random.Random(number)) for number in range(STREAMS)))
    for name in ("postgres", "cost", "postgres"):
        await asyncio.sleep(0.7 + chance.random())
        await processes.kill(name)
    await asyncio.wait_for(streams, 80)
    await processes.kill("postgres")
    async with asyncio.timeout(30):  # what was remembered is done again when Postgres is back
        while (total := await caller.total()).generations < STREAMS:
            await asyncio.sleep(0.2)
    await caller.close()
    supervisor.cancel()
    assert (total.output_tokens, total.generations) == (caller.delivered, STREAMS)
