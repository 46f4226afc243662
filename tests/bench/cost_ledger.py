"""Lease and settle: `python -m tests.bench.cost_ledger` prints the table.

A pair is a reservation and its settlement under a tenant's monthly budget with a soft limit and a budget for each session.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import uvloop

from deploy.local.postgres import Cluster
from deploy.local.state import State, free_port
from services.cost.budget import EACH, Level, Window
from services.cost.prices import Usage
from services.cost.redo import Redo
from services.cost.store import Filter
from services.cost.store_postgres import SQL, PostgresCostStore
from shared.clock import SystemClock
from shared.ids import RandomIds
from shared.migrate import migrate, migrations
from shared.paging import Page
from shared.postgres import open_database
from tests.support.cost import Replica, call, cost_replica

ALONE = 1000
TOGETHER = 12_000
CALLERS = 128
SESSIONS = int(os.environ.get("AGENTNET_BENCH_SESSIONS", "50"))  # each has a budget
FLOOR = "select 1"  # two of them: a pair that asks the database for nothing


@asynccontextmanager
async def cluster() -> AsyncIterator[Cluster]:
    """A Postgres of its own with every migration."""
    with tempfile.TemporaryDirectory() as folder:
        state = State(Path(folder) / "state")
        state.prepare()
        found = Cluster(state, port=free_port())
        found.initialise()
        process = subprocess.Popen(found.command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while not await found.ready():
                if process.poll() is not None:
                    raise RuntimeError("Postgres did not start")
                await asyncio.sleep(0.05)
            await found.bootstrap()
            await migrate(found.dsn("owner"), migrations())
            yield found
        finally:
            await found.stop()
            process.wait()


@asynccontextmanager
async def replicas(postgres: Cluster, count: int, *, fast: bool) -> AsyncIterator[list[Replica]]:
    async with AsyncExitStack() as stack:
        found = []
        for _ in range(count):
            database = await stack.enter_async_context(open_database(postgres.dsn("cost"), pool=4, stateless=True))
            redo = Redo(database, barrier=SQL["make_durable"])
            if fast:
                await stack.enter_async_context(redo.watched())
                await asyncio.sleep(0.1)
            found.append(cost_replica(PostgresCostStore(database, redo), SystemClock()))
        yield found


async def pair(replica: Replica, tenant: str, number: int) -> float:
    """Milliseconds for both."""
    paid = call(session_id=f"s{number % SESSIONS}", agent=f"A@{number % 5}")
    began = time.perf_counter()
    await replica.reserve(tenant, paid, 256, input_tokens=100)
    await replica.ledger.settle(tenant, paid, Usage(100, 200))
    return (time.perf_counter() - began) * 1000


def processor_seconds(postgres: Cluster) -> tuple[float, float]:
    """Of this process, and of the database with all its children."""
    server = (postgres.data / "postmaster.pid").read_text().splitlines()[0]
    nanoseconds = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
            if server in (parent, process.name):
                nanoseconds += int((process / "schedstat").read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return time.process_time(), nanoseconds / 1e9


async def floor(replica: Replica) -> float:
    """Median milliseconds of two round trips that do nothing."""
    assert isinstance(replica.store, PostgresCostStore)
    database, taken = replica.store.database, []
    for _ in range(ALONE):
        began = time.perf_counter()
        await database.statement(FLOOR)
        await database.statement(FLOOR)
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken)


async def measure(postgres: Cluster, *, count: int, fast: bool) -> Sequence[float]:
    """p50 of two empty round trips, p50 and p99 of pairs alone and their processor time here and in Postgres, pairs a
    second together, their processor time.
    """
    tenant = RandomIds().new("t").lower().replace("_", "-")
    async with replicas(postgres, count, fast=fast) as found:
        await found[0].limit(tenant, 10**13, window=Window.MONTH, soft_limit=10**12)
        await found[0].limit(tenant, 10**12, level=Level.SESSION, name=EACH)
        for number in range(200):
            await pair(found[0], tenant, number)
        empty = await floor(found[0])
        before = processor_seconds(postgres)
        alone = [await pair(found[number % count], tenant, number) for number in range(ALONE)]
        lone = [(now - then) / ALONE * 1000 for now, then in zip(processor_seconds(postgres), before, strict=True)]

        async def caller(which: int) -> None:
            for number in range(which, TOGETHER, CALLERS):
                await pair(found[which % count], tenant, number)

        before, began = processor_seconds(postgres), time.perf_counter()
        await asyncio.gather(*(caller(which) for which in range(CALLERS)))
        elapsed, after = time.perf_counter() - began, processor_seconds(postgres)
        (total,) = await found[0].ledger.summarize(tenant, Filter(), group_by=(), page=Page())
        assert total.generations == 200 + ALONE + TOGETHER
        assert await found[0].spent(tenant, window=Window.MONTH) == (total.micros_usd, 0)
    quantiles = statistics.quantiles(alone, n=100)
    used = sum(after) - sum(before)
    return empty, quantiles[49], quantiles[98], *lone, TOGETHER / elapsed, used / TOGETHER * 1000, TOGETHER / used


async def main() -> None:
    write = sys.stdout.write
    write("| replicas, commits | two empty round trips, p50 ms | pair alone, p50 ms | p99 ms | its processor ms here ")
    write("| and in Postgres | pairs/s, 128 callers | processor ms a pair | pairs a processor second |\n")
    write("|---|---|---|---|---|---|---|---|---|\n")
    write(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
    async with cluster() as postgres:
        for count, fast in ((1, True), (3, True), (1, False)):
            empty, p50, p99, *lone, rate, used, each = await measure(postgres, count=count, fast=fast)
            kind = "remembered until on disk" if fast else "waiting for the disk"
            write(f"| {count}, {kind} | {empty:.2f} | {p50:.2f} | {p99:.2f} | {lone[0]:.2f} | {lone[1]:.2f} ")
            write(f"| {rate:.0f} | {used:.2f} | {each:.0f} |\n")
    write(f"load after: {os.getloadavg()[0]:.1f}\n")


if __name__ == "__main__":
    uvloop.run(main())
