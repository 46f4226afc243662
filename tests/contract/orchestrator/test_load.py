"""Hundreds of sessions at once on one replica with real stores: none goes wrong, memory stays, readers hear at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from statistics import median

import pytest

from deploy.local.postgres import Cluster
from tests.bench.sessions import Bench, Where, replica
from tests.bench.sessions_model import Load

pytestmark = pytest.mark.heavy


@pytest.fixture
async def bench(postgres: Cluster, valkey_url: str) -> AsyncIterator[Bench]:
    dsns = postgres.dsn("orchestrator"), postgres.dsn("orchestrator_driver")
    async with replica(Where(*dsns, valkey_url, postgres.dsn("postgres")), {}) as found:
        await found.run(Load(4, 2, 0))
        yield found


async def test_five_hundred_sessions_at_once_end_as_they_should_in_bounded_memory(bench: Bench) -> None:
    """`run` raises when one does not end after its last round with every token."""
    found = await bench.run(Load(500, 4, 0.02))
    middle, end = found.rss_mb[len(found.rss_mb) // 2], found.rss_mb[-1]
    assert max(found.rss_mb) - found.rss_mb[0] < 100
    assert end - middle < 20


async def test_a_reader_hears_a_token_soon_after_it_was_made(bench: Bench) -> None:
    found = await bench.run(Load(4, 32, 0.02, readers=4))
    late = sorted(found.latency)
    assert len(late) > 4 * 16 * 32 * 0.9
    assert late[len(late) // 10] < 5  # what the way itself takes; more is waiting for a processor that others use
    assert median(late) < 50
