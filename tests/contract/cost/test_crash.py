"""Postgres and cost are killed while a synthetic provider delivers: the ledger has every token, once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from agentnet.common.v1 import usage_pb2
from agentnet.cost.v1 import cost_service_pb2 as pb
from agentnet.cost.v1 import cost_service_pb2_grpc as rpc
from agentnet.inference.v1 import inference_service_pb2 as inference
from agentnet.inference.v1 import inference_service_pb2_grpc as inference_rpc
from agentnet.inference.v1 import message_pb2
from shared.migrate import migrate, migrations
from tests.support.identity import Keys
from tests.support.mortals import Processes

pytestmark = pytest.mark.heavy

STREAMS = 150
WHOLE = 150  # streams through inference, which is a process more
Code = grpc.StatusCode
RETRIED = (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.INTERNAL, Code.UNKNOWN, Code.CANCELLED)  # of a killed server


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    found = Processes(tmp_path)
    found.cluster.initialise()
    yield found
    found.end()


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


async def ready(processes: Processes) -> None:
    await processes.postgres()
    await processes.cluster.bootstrap()
    await migrate(processes.cluster.dsn("owner"), migrations())


async def test_the_ledger_has_every_delivered_token_once_after_kills(processes: Processes) -> None:
    await ready(processes)
    supervisor = asyncio.create_task(processes.supervise(cost=processes.cost))
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


class Listener:
    """A caller of inference: starts a stream, again under its id when it could not begin, and counts what comes. One in
    three is cancelled on its way, and read to its end like the others.
    """

    def __init__(self, address: str, keys: Keys) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=[("grpc.max_reconnect_backoff_ms", 200)])
        self._stub = inference_rpc.InferenceServiceStub(self._channel)
        self._metadata = keys.metadata()
        self.delivered = self.began = self.cancelled = 0

    async def stream(self, number: int, chance: random.Random) -> None:
        await asyncio.sleep(chance.random() * 8)
        until = chance.randrange(1, 60) if number % 3 == 0 else 0
        said = message_pb2.Message(role=message_pb2.ROLE_USER, content=[message_pb2.ContentPart(text="go on")])
        request = inference.GenerateRequest(
            generation_id=f"gen_{number}", model="synthetic-paced", messages=[said],
            max_output_tokens=chance.randrange(20, 500),
        )  # fmt: skip
        begun = False
        while not begun:
            try:
                async for answer in self._stub.Generate(request, metadata=self._metadata):
                    begun = True
                    self.delivered += answer.event.text.token_count
                    if until and answer.event.sequence > until:
                        await self._cancel(request.generation_id)
                        until = 0
            except grpc.aio.AioRpcError as error:
                if error.code() not in RETRIED:
                    raise
                await asyncio.sleep(0.2)
        self.began += 1

    async def _cancel(self, generation: str) -> None:
        """Of a generation that Valkey forgot when it was killed inference cannot be asked this: it goes on."""
        asked = inference.CancelGenerationRequest(generation_id=generation)
        try:
            answer = await self._stub.CancelGeneration(asked, metadata=self._metadata)
            self.cancelled += not answer.already_ended
        except grpc.aio.AioRpcError as error:
            if error.code() not in (*RETRIED, Code.NOT_FOUND):
                raise

    async def close(self) -> None:
        await self._channel.close()


@pytest.mark.timeout(480)
@pytest.mark.parametrize("seed", [1, 2])
async def test_the_ledger_has_every_token_the_synthetic_provider_streamed(processes: Processes, seed: int) -> None:
    """Whole streams through inference, while cost, Valkey and Postgres are killed at points drawn by lot."""
    await ready(processes)
    kept = {"cost": processes.cost, "valkey": processes.valkey, "inference": processes.generating}
    supervisor = asyncio.create_task(processes.supervise(**kept))
    caller, chance = Caller(processes.address, processes.keys), random.Random(seed)
    limit = pb.SetBudgetRequest(limit_micros_usd=10**9)
    await caller.until_answered(rpc.CostServiceStub(caller._channel).SetBudget, limit)
    listener = Listener(processes.inference, processes.keys)
    streams = asyncio.gather(*(listener.stream(number, random.Random(number)) for number in range(WHOLE)))
    for name in chance.sample(("cost", "valkey", "postgres") * 2, 6):
        await asyncio.sleep(0.5 + 1.5 * chance.random())
        await processes.kill(name)
    await asyncio.wait_for(streams, 240)
    async with asyncio.timeout(60):  # settlements that found cost away are in inference's outbox
        while (total := await caller.total()).generations < WHOLE:
            await asyncio.sleep(0.2)
    await caller.close()
    await listener.close()
    supervisor.cancel()
    assert processes.runs("inference")
    assert listener.cancelled > WHOLE / 10
    assert (listener.began, total.generations, total.output_tokens) == (WHOLE, WHOLE, listener.delivered)
