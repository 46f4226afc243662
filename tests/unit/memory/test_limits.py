"""How a tenant near its limit is slowed down, and what is counted."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from services.memory.errors import MemoryFull
from services.memory.store import NEVER, Filter
from services.memory.store_memory import InMemoryStore
from services.memory.upkeep import Limits, Upkeep
from shared.clock import FakeClock
from shared.ids import SequentialIds
from shared.paging import Page
from tests.support.memory import NOW, entry


async def test_storing_slows_down_from_nine_tenths_on() -> None:
    pauses: list[float] = []
    store, clock = InMemoryStore(), FakeClock()

    async def pause(seconds: float) -> None:
        pauses.append(round(seconds, 3))

    limits = Limits(store, clock, memories=100, pause=pause)
    await store.add("t", [entry(str(n), 1, n) for n in range(89)])
    for _ in range(11):
        await limits.admit("t", 1)
    with pytest.raises(MemoryFull):
        await limits.admit("t", 1)
    assert pauses == [pytest.approx(n / 10, abs=1e-3) for n in range(1, 10)]


async def test_the_count_is_taken_anew_after_a_while() -> None:
    store, clock = InMemoryStore(), FakeClock()
    limits = Limits(store, clock, memories=10)
    await limits.admit("t", 9)
    clock.advance(timedelta(seconds=16))
    await limits.admit("t", 9)
    assert limits.take_stored() == {"t"}
    assert limits.take_stored() == set()


async def test_a_process_that_begins_anew_prunes_what_was_stored_before_it() -> None:
    store, clock = InMemoryStore(), FakeClock(NOW)
    await store.add("t", [entry("ended", expires_at=NOW)])
    upkeep = Upkeep(store, Limits(store, clock, memories=10), clock, SequentialIds())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await upkeep.run(timedelta(milliseconds=5))
    assert (await store.every("t", Filter(), now=NEVER, newest_first=True, page=Page())) == []
