"""Streams are served in fair turns: what else the loop has to do comes in between."""

from __future__ import annotations

import asyncio

from services.inference.turns import Turns


class Watch:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


async def test_as_long_as_a_turn_has_time_nobody_waits() -> None:
    watch = Watch()
    turns = Turns(clock=watch)
    assert not turns.crowded
    watch.seconds = 0.003
    assert not turns.crowded
    watch.seconds = 0.005
    assert turns.crowded


async def test_the_next_turn_has_its_own_time() -> None:
    watch = Watch()
    turns = Turns(clock=watch)
    assert not turns.crowded
    watch.seconds = 1.0
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not turns.crowded


async def test_who_waits_is_served_in_order_and_others_have_turns_in_between() -> None:
    turns, served, elsewhere = Turns(), [], 0

    async def stream(number: int) -> None:
        await turns.wait()
        served.append((number, elsewhere))

    assert not turns.crowded
    async with asyncio.TaskGroup() as tasks:
        for number in range(40):
            tasks.create_task(stream(number))
        while len(served) < 40:
            await asyncio.sleep(0)
            elsewhere += 1
    assert [number for number, _ in served] == list(range(40))
    begun = sorted({turn for _, turn in served})
    assert len(begun) == 3
    assert min(later - sooner for sooner, later in zip(begun, begun[1:], strict=False)) >= 4


async def test_who_gave_up_waiting_takes_nobody_s_place() -> None:
    turns = Turns()
    gone, waiting = asyncio.create_task(turns.wait()), asyncio.create_task(turns.wait())
    await asyncio.sleep(0)
    gone.cancel()
    assert not (turns.crowded and waiting.done())
    async with asyncio.timeout(1):
        await waiting
