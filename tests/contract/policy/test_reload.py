"""A change of what is enforced reaches every replica within a second."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, aclosing
from datetime import timedelta

from deploy.local.postgres import Cluster
from services.policy.library import Library
from services.policy.store_postgres import PostgresPolicyStore
from shared.clock import SystemClock
from shared.postgres import open_database
from shared.tasks import supervised

DEFAULT = "rules: [{name: a, type: keyword, severity: minor, keywords: [a]}]"
WORDS = "rules: [{name: words, type: keyword, severity: severe, keywords: [mesh]}]"
CHANGES = 20


async def replica(stack: AsyncExitStack, dsn: str) -> Library:
    database = await stack.enter_async_context(open_database(dsn, pool=2))
    store = PostgresPolicyStore(database, dsn)
    library = Library(store, DEFAULT, clock=SystemClock(), poll=timedelta(seconds=60), signer=None)
    await stack.enter_async_context(supervised("publish", library.publish))
    return library


async def test_a_label_moved_on_one_replica_is_published_by_another_within_a_second(
    postgres: Cluster, tenant: str
) -> None:
    async with AsyncExitStack() as stack:
        here = await replica(stack, postgres.dsn("policy"))
        there = await replica(stack, postgres.dsn("policy"))
        seen = await stack.enter_async_context(aclosing(there.watch(0, heartbeat=timedelta(seconds=30))))
        await anext(seen)
        seconds = []
        for number in range(CHANGES):
            began = time.perf_counter()
            version = f"1.0.{number}"
            await here.add(tenant, name="words", version=version, document=WORDS, labels=("production",))
            async with asyncio.timeout(5):
                async for enforced in seen:
                    if enforced and [one.version for one in enforced.tenants.get(tenant, ())] == [version]:
                        break
            seconds.append(time.perf_counter() - began)
        assert max(seconds) < 1
