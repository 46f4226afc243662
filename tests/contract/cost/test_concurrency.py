"""A thousand callers at once through three replicas on one Postgres."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import asyncpg
import pytest

from deploy.local.postgres import Cluster
from services.cost.budget import Level
from services.cost.errors import BudgetExhausted
from services.cost.prices import Usage
from services.cost.redo import Redo
from services.cost.store import Filter
from services.cost.store_postgres import SQL, PostgresCostStore
from shared.clock import SystemClock
from shared.paging import Page
from shared.postgres import open_database
from tests.support.cost import Replica, call, cost_replica

CALLERS = 1000
LEASE_TOKENS, STEP = 20, 10
ONE_LEASE = 2 * (LEASE_TOKENS + STEP)  # micro-USD: two a token


@pytest.fixture
async def replicas(postgres: Cluster) -> AsyncIterator[list[Replica]]:
    async with AsyncExitStack() as stack:
        found = []
        for _ in range(3):
            database = await stack.enter_async_context(open_database(postgres.dsn("cost"), pool=4, stateless=True))
            redo = Redo(database, barrier=SQL["make_durable"])
            await stack.enter_async_context(redo.watched())
            found.append(cost_replica(PostgresCostStore(database, redo), SystemClock()))
        yield found


@dataclass(slots=True)
class Spending:
    """What callers did, as the provider would bill it."""

    tokens: int = 0
    refused: int = 0
    cut: int = 0
    states: list[int] = field(default_factory=list)


async def stream(replicas: list[Replica], tenant: str, seen: Spending, chance: random.Random) -> None:
    """One caller: reserves, produces, grows its lease while it can, and settles, each on any replica."""
    paid = call(session_id=f"s{chance.randrange(20)}", agent=f"A@{chance.randrange(3)}")
    try:
        await chance.choice(replicas).reserve(tenant, paid, LEASE_TOKENS)
    except BudgetExhausted:
        seen.refused += 1
        return
    covered, wanted = LEASE_TOKENS, chance.randrange(1, 60)
    produced = min(wanted, covered)
    while produced < wanted:
        try:
            await chance.choice(replicas).ledger.extend(tenant, paid.generation_id, output_tokens=covered + STEP)
        except BudgetExhausted:
            seen.cut += 1
            break
        covered += STEP
        produced = min(wanted, covered)
    await chance.choice(replicas).ledger.settle(tenant, paid, Usage(0, produced))
    seen.tokens += produced


async def watch(postgres: Cluster, tenant: str, seen: Spending) -> None:
    """Settled plus leased, over and over, as any other connection sees it."""
    connection = await asyncpg.connect(postgres.dsn("cost"))
    try:
        await connection.execute("select set_config('app.tenant', $1, false)", tenant)
        while True:
            seen.states.append(
                await connection.fetchval(
                    "select settled_micros_usd + leased_micros_usd from budget_counter where scope = 'tenant:'"
                )
            )
            await asyncio.sleep(0.002)
    finally:
        await connection.close()


async def run(postgres: Cluster, replicas: list[Replica], tenant: str) -> Spending:
    seen, chance = Spending(), random.Random(9)
    watcher = asyncio.create_task(watch(postgres, tenant, seen))
    try:
        await asyncio.gather(*(stream(replicas, tenant, seen, chance) for _ in range(CALLERS)))
    finally:
        watcher.cancel()
        await asyncio.wait({watcher})
    return seen


async def test_settled_plus_leased_never_exceeds_the_limit_by_more_than_a_lease(
    postgres: Cluster, replicas: list[Replica], tenant: str
) -> None:
    limit = 20_000  # about a third of what the callers want
    await replicas[0].limit(tenant, limit)
    await replicas[0].limit(tenant, 2_000, level=Level.SESSION, name="*")
    seen = await run(postgres, replicas, tenant)
    assert len(seen.states) > 20
    assert max(seen.states) <= limit + ONE_LEASE
    assert seen.refused > 0
    assert await replicas[1].spent(tenant) == (2 * seen.tokens, 0)
    assert limit / 2 <= 2 * seen.tokens <= limit
    (total,) = await replicas[2].ledger.summarize(tenant, Filter(), group_by=(), page=Page())
    assert (total.output_tokens, total.generations) == (seen.tokens, CALLERS - seen.refused)


async def test_while_nine_tenths_are_free_nobody_is_refused(
    postgres: Cluster, replicas: list[Replica], tenant: str
) -> None:
    await replicas[0].limit(tenant, 10 * CALLERS * ONE_LEASE)
    seen = await run(postgres, replicas, tenant)
    assert (seen.refused, seen.cut) == (0, 0)
    assert await replicas[0].spent(tenant) == (2 * seen.tokens, 0)
