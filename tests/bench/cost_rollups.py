"""A summary over ten million entries: `python -m tests.bench.cost_rollups [entries]` prints the table.

A year of entries of 9 models, 19 agents, 7 teams and 50 users, then a thousand late ones settled through the ledger. Every summary is compared
with the same sums over the single entries.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import asyncpg
import uvloop

from deploy.local.postgres import Cluster
from services.cost import rows
from services.cost.prices import Usage
from services.cost.store import Filter
from services.cost.store_postgres import SQL, PostgresCostStore
from shared.clock import FakeClock
from shared.paging import Page
from shared.postgres import load_queries, open_database
from tests.bench.cost_ledger import cluster, processor_seconds
from tests.support.cost import Replica, call, cost_replica

QUERIES: Final = load_queries(Path(__file__).with_suffix(".sql"))
TENANT: Final = "bench"
TIMES: Final = 15
LATE: Final = 1000
END: Final = datetime(2026, 1, 1, tzinfo=UTC)
QUESTIONS: Final[Mapping[str, tuple[Filter, Sequence[str]]]] = {
    "all of it": (Filter(), ()),
    "by model": (Filter(), ("model",)),
    "by provider, model and agent": (Filter(), ("provider", "model", "agent")),
    "by day, last 90 days": (Filter(start=END - timedelta(days=90)), ("day",)),
    "by hour, last week": (Filter(start=END - timedelta(days=7)), ("hour",)),
    "by team": (Filter(), ("team",)),
    "by user": (Filter(), ("user",)),
    "of one user by day, last 90 days": (Filter(start=END - timedelta(days=90), user="u7"), ("day",)),
    "by team and hour, last week": (Filter(start=END - timedelta(days=7)), ("team", "hour")),
    "by agent, from 12:34:56 to 21:43:05 in a quarter": (
        Filter(datetime(2025, 4, 1, 12, 34, 56, tzinfo=UTC), datetime(2025, 7, 2, 21, 43, 5, tzinfo=UTC)), ("agent",)
    ),
}  # fmt: skip


async def fill(postgres: Cluster, entries: int) -> None:
    connection = await asyncpg.connect(postgres.dsn("postgres"))
    try:
        await connection.execute("set maintenance_work_mem = '512MB'; set work_mem = '256MB'")
        for name in ("bare", "fill", "indexes", "hours", "days", "person_hours", "person_days", "settle_statistics"):
            began = time.perf_counter()
            arguments = (entries,) if name == "fill" else ()
            await connection.execute(QUERIES[name], *arguments, timeout=3600)
            sys.stderr.write(f"{name}: {time.perf_counter() - began:.0f} s\n")
    finally:
        await connection.close()


async def come_late(replica: Replica, clock: FakeClock) -> None:
    """Entries of hours long rolled up."""

    async def one(number: int) -> None:
        at = clock.now() - timedelta(hours=number * 0.8, minutes=number % 60)
        await replica.ledger.settle(
            TENANT, call(agent="A11", model="m", team="T3", user="u3"), Usage(number, number), ended_at=at
        )

    await asyncio.gather(*(one(number) for number in range(LATE)))


async def raw(store: PostgresCostStore, chosen: Filter, group_by: Sequence[str]) -> tuple[object, float]:
    """The same from single entries, and its seconds."""
    began = time.perf_counter()
    async with store.database.tenant(TENANT) as connection:
        wanted = (*rows.summed_by(chosen, group_by, entries=True), 0, 501)
        found = await connection.fetch(SQL["summarize"], *wanted, timeout=600)
    sums = [(tuple(row[name] for name in group_by), row["micros_usd"], row["generations"]) for row in found]
    return sums, time.perf_counter() - began


async def main() -> None:
    entries = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000
    write, clock = sys.stdout.write, FakeClock(END)
    async with cluster() as postgres:
        await fill(postgres, entries)
        async with open_database(postgres.dsn("cost"), pool=4, stateless=True) as database:
            store = PostgresCostStore(database)
            replica = cost_replica(store, clock)
            await come_late(replica, clock)
            write(f"{entries + LATE:,} entries; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n\n")
            write("| summary | from roll-ups, p50 ms | processor ms | from single entries, ms | the same |\n")
            write("|---|---|---|---|---|\n")
            for name, (chosen, group_by) in QUESTIONS.items():
                taken, used = [], sum(processor_seconds(postgres))
                for _ in range(TIMES):
                    began = time.perf_counter()
                    found = await replica.ledger.summarize(TENANT, chosen, group_by=group_by, page=Page(500))
                    taken.append((time.perf_counter() - began) * 1000)
                used = (sum(processor_seconds(postgres)) - used) / TIMES * 1000
                sums, seconds = await raw(store, chosen, group_by)
                same = sums == [(one.group, one.micros_usd, one.generations) for one in found]
                write(f"| {name} | {statistics.median(taken):.1f} | {used:.1f} | {seconds * 1000:.0f} | {same} |\n")


if __name__ == "__main__":
    uvloop.run(main())
