"""A writer is killed in the middle of a batch: each batch is there as a whole or not at all."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import asyncpg
import pytest

from deploy.local.postgres import Cluster
from services.memory.store import Filter, Probe
from services.memory.store_postgres import PostgresMemoryStore
from shared.errors import Unavailable
from shared.postgres import Database
from tests.support.bulk_writer import BATCH
from tests.support.memory import NOW, vector

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.heavy
async def test_a_batch_is_stored_whole_or_not_at_all(postgres: Cluster, database: Database, tenant: str) -> None:
    finished: list[int] = []
    for attempt in range(4):
        finished += _killed(postgres.dsn("memory"), tenant, attempt * 1000)
    connection = database.tenant(tenant)
    async with connection as found:
        rows = await found.fetch("select tags[1] as batch, count(*) as rows from memory group by 1")
        words = await found.fetchval("select count(distinct place) from memory_word")
        counted = await found.fetchval("select sum(memories) from memory_count")
    stored = {int(row["batch"]): row["rows"] for row in rows}
    assert finished
    assert set(stored.values()) == {BATCH}
    assert set(finished) <= set(stored)
    assert words == counted == len(stored) * BATCH
    store = PostgresMemoryStore(database)
    gathered = await store.gather(tenant, Probe(vector(1), ("batch",), 5, 0), Filter(), now=NOW)
    assert gathered.corpus.memories == counted


async def test_a_database_that_goes_in_the_middle_of_a_call_is_unavailable(database: Database, tenant: str) -> None:
    with pytest.raises(Unavailable):
        async with database.tenant(tenant) as connection:
            await connection.execute("select pg_terminate_backend(pg_backend_pid())")
    with pytest.raises(Unavailable):
        async with database.tenant(tenant):
            raise asyncpg.InternalClientError("cannot switch to state 15; another operation (2) is in progress")
    await database.ping()


def _killed(dsn: str, tenant: str, start: int) -> list[int]:
    """Starts a writer, kills it at a random moment after its first batch; the batches it said were stored."""
    command = (sys.executable, "-m", "tests.support.bulk_writer", dsn, tenant, str(start))
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    first = process.stdout.readline()
    time.sleep(random.uniform(0, 0.4))
    process.kill()
    rest = process.stdout.read().split()
    process.wait()
    process.stdout.close()
    return [int(first), *map(int, rest)]
