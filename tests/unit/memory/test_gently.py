"""Long work lets others run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.memory import gently
from services.memory.policy import Held, MemoryPolicy
from services.memory.remember import NewMemory, Remembering
from services.memory.store import MemoryType
from services.memory.store_memory import InMemoryStore
from services.memory.upkeep import Limits
from shared.clock import FakeClock
from shared.ids import SequentialIds
from tests.support.memory import HashingEmbedder, vector
from tests.support.published import enforcing


@asynccontextmanager
async def counted_turns() -> AsyncIterator[list[None]]:
    """One entry for each turn that something else had meanwhile."""
    turns = list[None]()

    async def other() -> None:
        while True:
            turns.append(None)
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    yield turns
    beside.cancel()


def double(number: int) -> int:
    time.sleep(0.002)
    return number * 2


async def test_others_run_while_many_are_worked_on_and_the_order_stays() -> None:
    async with counted_turns() as turns:
        assert await gently.each(double, range(30)) == [number * 2 for number in range(30)]
    assert len(turns) >= 5


class SlowPolicy(MemoryPolicy):
    """Two milliseconds a text."""

    def kept(self, tenant: str, agent: str, text: str, *, field: str) -> tuple[str, str]:
        time.sleep(0.002)
        return super().kept(tenant, agent, text, field=field)


async def test_others_run_while_a_batch_is_judged() -> None:
    store, clock = InMemoryStore(), FakeClock()
    limits, policy = Limits(store, clock, memories=100), SlowPolicy(await enforcing(Held.of), strict=True)
    remembering = Remembering(store, HashingEmbedder(), limits, policy=policy, clock=clock, ids=SequentialIds())
    many = [NewMemory(str(number), MemoryType.SEMANTIC, vector=vector(1)) for number in range(30)]
    async with counted_turns() as turns:
        stored = await remembering.remember_many("t", many)
    assert [memory.content for memory, _ in stored] == [str(number) for number in range(30)]
    assert len(turns) >= 5


async def test_a_few_are_done_at_once() -> None:
    assert await gently.each(str, []) == []
    assert await gently.each(str, [1]) == ["1"]
