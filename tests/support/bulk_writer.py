"""A process that stores batches without end, to be killed. Arguments: the address of the database, the tenant, a start."""

from __future__ import annotations

import asyncio
import sys
from itertools import count

from pgvector.asyncpg import register_vector

from services.memory.store_postgres import PostgresMemoryStore
from shared.postgres import open_database
from tests.support.memory import entry

BATCH = 200


async def write(dsn: str, tenant: str, start: int) -> None:
    async with open_database(dsn, prepare=register_vector) as database:
        store = PostgresMemoryStore(database)
        for batch in count(start):
            many = [entry(f"batch {batch} entry {n}", 1, n / BATCH, tags=(str(batch),)) for n in range(BATCH)]
            await store.add(tenant, many)
            sys.stdout.write(f"{batch}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(write(sys.argv[1], sys.argv[2], int(sys.argv[3])))
