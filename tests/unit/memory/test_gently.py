"""Long work lets others run."""

from __future__ import annotations

import asyncio
import time

from services.memory import gently


def double(number: int) -> int:
    time.sleep(0.002)
    return number * 2


async def test_others_run_while_many_are_worked_on_and_the_order_stays() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    assert await gently.each(double, range(30)) == [number * 2 for number in range(30)]
    beside.cancel()
    assert turns >= 5


async def test_a_few_are_done_at_once() -> None:
    assert await gently.each(str, []) == []
    assert await gently.each(str, [1]) == ["1"]
