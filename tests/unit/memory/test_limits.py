"""How a tenant near its limit is slowed down, and what is counted."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from services.memory.errors import MemoryFull
from services.memory.store import NEVER, Filter, MemoryType
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


async def test_who_has_made_room_is_slowed_down_no_longer_and_both_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses, reader = list[float](), InMemoryMetricReader()
    counter = MeterProvider(metric_readers=[reader]).get_meter("test").create_counter("memory_pressed")
    monkeypatch.setattr("services.memory.upkeep._pressed", counter)
    store, clock = InMemoryStore(), FakeClock()

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    limits = Limits(store, clock, memories=100, pause=pause)
    upkeep = Upkeep(store, limits, clock, SequentialIds())
    await store.add("t", [entry(str(n), 1, n) for n in range(95)])
    await limits.admit("t", 1)
    with pytest.raises(MemoryFull):
        await limits.admit("t", 10)
    await limits.admit("t", 1)
    await upkeep.set_retention("t", MemoryType.SEMANTIC, max_memories=50, max_days=0)
    assert (await upkeep.prune("t", dry_run=False)).crowded_out == 45
    await limits.admit("t", 10)
    assert len(pauses) == 2
    data: Any = reader.get_metrics_data()
    points = data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points
    assert {one.attributes["outcome"]: one.value for one in points} == {"slowed": 2, "refused": 1}


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
