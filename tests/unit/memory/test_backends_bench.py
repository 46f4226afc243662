"""The bench of memory's backends: a line each, made of what memory asks of a store."""

from __future__ import annotations

import numpy as np

from services.memory.store_memory import InMemoryStore
from tests.bench import memory_backends as bench


async def test_a_backend_gets_a_line_with_its_times_and_its_recall() -> None:
    vectors = np.random.default_rng(1).normal(size=(80, 384)).astype(np.float16)
    line = await bench.measured("in memory", InMemoryStore(), [f"sentence {at}" for at in range(80)], vectors)
    name, stored, *times, recall = [cell.strip() for cell in line.strip("|").split("|")]
    assert (name, float(recall)) == ("in memory", 1.0)
    assert float(stored.replace(",", "")) > 0
    assert len(times) == 5
    assert float(times[0]) <= float(times[1])
