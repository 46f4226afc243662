"""Inference processes die by -9 at points drawn by lot while they work at the queue: what was submitted ends once, whole,
and every run of it stands in the ledger once.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest

from agentnet.cost.v1 import cost_service_pb2, cost_service_pb2_grpc
from agentnet.inference.v1 import inference_service_pb2 as inference
from agentnet.inference.v1 import message_pb2
from agentnet.inference.v1 import queue_service_pb2 as pb
from agentnet.inference.v1 import queue_service_pb2_grpc as rpc
from deploy.local.state import free_port
from shared.migrate import migrate, migrations
from tests.support.identity import Keys
from tests.support.mortals import Processes

pytestmark = pytest.mark.heavy

SUBMITTED, KILLS = 80, 8
RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    found = Processes(tmp_path)
    found.cluster.initialise()
    yield found
    found.end()


def words(number: int) -> str:
    """What the model is to say: no two of them the same, a third of a second to four seconds long."""
    return " ".join(f"{number}.{place}" for place in range(30 + number * 5))


class Submitter:
    """Asks any process that answers, until one does."""

    def __init__(self, addresses: list[str], keys: Keys) -> None:
        options = [("grpc.max_reconnect_backoff_ms", 200)]
        self._channels = [grpc.aio.insecure_channel(address, options=options) for address in addresses]
        self._stubs = [rpc.QueueServiceStub(channel) for channel in self._channels]
        self._metadata = keys.metadata()
        self._turn = 0

    async def asked(self, method: str, request: Any) -> Any:
        while True:
            self._turn += 1
            stub = self._stubs[self._turn % len(self._stubs)]
            try:
                return await getattr(stub, method)(request, metadata=self._metadata, timeout=5)
            except grpc.aio.AioRpcError as error:
                if error.code() not in RETRIED:
                    raise
                await asyncio.sleep(0.1)

    async def submit(self, number: int) -> None:
        said = message_pb2.Message(
            role=message_pb2.ROLE_USER, content=[message_pb2.ContentPart(text=f"say: {words(number)}")]
        )
        asked = inference.GenerateRequest(
            generation_id=f"gen_{number}", model="synthetic-paced", messages=[said], max_output_tokens=1000
        )
        await self.asked("SubmitGeneration", pb.SubmitGenerationRequest(generation=asked))

    async def ended(self, number: int) -> pb.GetSubmittedGenerationResponse:
        while True:
            answer = await self.found(number)
            if answer.HasField("end_time"):
                return answer
            await asyncio.sleep(0.5)

    async def found(self, number: int) -> pb.GetSubmittedGenerationResponse:
        asked = pb.GetSubmittedGenerationRequest(generation_id=f"gen_{number}")
        answer: pb.GetSubmittedGenerationResponse = await self.asked("GetSubmittedGeneration", asked)
        return answer

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()


async def budgeted(processes: Processes) -> None:
    """Cost answers, and there is money to lease of."""
    async with grpc.aio.insecure_channel(processes.address) as channel, asyncio.timeout(60):
        while True:
            try:
                await cost_service_pb2_grpc.CostServiceStub(channel).SetBudget(
                    cost_service_pb2.SetBudgetRequest(limit_micros_usd=10**9), metadata=processes.keys.metadata()
                )
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.2)
            else:
                return


async def ledger(processes: Processes) -> list[Any]:
    connection = await asyncpg.connect(processes.cluster.dsn("owner"))
    try:
        await connection.execute("select set_config('app.tenant', 'acme', false)")
        if await connection.fetchval("select count(*) from cost.lease"):
            return []
        rows: list[Any] = await connection.fetch("select generation_id, tokens_output, outcome from cost.cost_event")
        return rows
    finally:
        await connection.close()


def whose(generation_id: str) -> str:
    return generation_id.split("-run", maxsplit=1)[0]


@pytest.mark.timeout(480)
@pytest.mark.parametrize("seed", [1, 2])
async def test_whatever_process_dies_each_ends_once_whole_and_its_runs_are_paid_once(
    processes: Processes, seed: int
) -> None:
    await processes.postgres()
    await processes.cluster.bootstrap()
    await migrate(processes.cluster.dsn("owner"), migrations())
    places = {name: f"127.0.0.1:{free_port()}" for name in ("one", "two")}
    kept = {name: partial(processes.generating, name, address) for name, address in places.items()}
    supervisor = asyncio.create_task(processes.supervise(cost=processes.cost, valkey=processes.valkey, **kept))
    submitter, chance = Submitter(list(places.values()), processes.keys), random.Random(seed)
    await budgeted(processes)
    await asyncio.gather(*(submitter.submit(number) for number in range(SUBMITTED)))
    ends = asyncio.gather(*(submitter.ended(number) for number in range(SUBMITTED)))
    for _ in range(KILLS):
        await asyncio.sleep(1 + 3 * chance.random())
        await processes.kill(chance.choice(list(places)))
    first = await asyncio.wait_for(ends, 240)
    async with asyncio.timeout(60):  # what a killed process owed is settled by the next on its folder
        while not (paid := await ledger(processes)):
            await asyncio.sleep(0.5)

    assert [answer.response.text for answer in first] == [words(number) for number in range(SUBMITTED)]
    assert [await submitter.found(number) for number in range(SUBMITTED)] == first
    assert set(Counter(row["generation_id"] for row in paid).values()) == {1}
    spent = {row["generation_id"]: row for row in paid}
    for number, answer in enumerate(first):
        final = spent[answer.response.generation_id]
        assert (final["outcome"], final["tokens_output"]) == ("completed", len(words(number).split()))
        runs = [name for name in spent if whose(name) == f"gen_{number}"]
        assert len(runs) <= answer.runs
    again = sum(answer.runs - 1 for answer in first)
    whole = sum(row["outcome"] == "completed" for row in paid)
    assert again >= 1, "nothing was running when a process died"
    assert whole == SUBMITTED, "an answer that was whole was lost and bought again"
    await submitter.close()
    supervisor.cancel()
