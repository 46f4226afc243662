"""A thousand callers at once through three replicas on one Postgres, every state of every counter looked at."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
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

CALLERS, SESSIONS = 1000, 20
LEASE_TOKENS, STEP = 20, 10
ONE_LEASE = 2 * (LEASE_TOKENS + STEP)  # micro-USD: two a token
# Runs in the transaction that changes a counter: no state of it is between two looks.
RECORDER = """
create table if not exists cost.counter_seen (tenant_id text, scope text, total bigint);
grant insert on cost.counter_seen to agentnet_cost;
create or replace function cost.see_counter() returns trigger language plpgsql as $$
begin
  insert into cost.counter_seen values (new.tenant_id, new.scope, new.settled_micros_usd + new.leased_micros_usd);
  return null;
end $$;
create or replace trigger counter_is_seen after insert or update on cost.budget_counter
  for each row execute function cost.see_counter();
"""
FORGET = """
drop trigger if exists counter_is_seen on cost.budget_counter;
drop function if exists cost.see_counter();
drop table if exists cost.counter_seen;
"""


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
    most: dict[str, int] = field(default_factory=dict)  # that was ever settled and leased, by the scope of the counter
    states: int = 0


async def stream(replicas: list[Replica], tenant: str, seen: Spending, chance: random.Random) -> None:
    """One caller: reserves, produces, grows its lease while it can, and settles, each on any replica."""
    paid = call(session_id=f"s{chance.randrange(SESSIONS)}", agent=f"A@{chance.randrange(3)}")
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


@asynccontextmanager
async def seen_at_any_instant(postgres: Cluster, tenant: str, seen: Spending) -> AsyncIterator[None]:
    """Writes down every value that settled plus leased takes while the block runs, within transactions too."""
    owner = await asyncpg.connect(postgres.dsn("owner"))
    try:
        await owner.execute(RECORDER)
        yield
        found = await owner.fetch(
            "select scope, max(total) as most, count(*) as states from cost.counter_seen where tenant_id = $1 group by 1",
            tenant,
        )
        seen.most = {row["scope"]: row["most"] for row in found}
        seen.states = sum(row["states"] for row in found)
    finally:
        await owner.execute(FORGET)
        await owner.close()


async def run(postgres: Cluster, replicas: list[Replica], tenant: str) -> Spending:
    seen, chance = Spending(), random.Random(9)
    async with seen_at_any_instant(postgres, tenant, seen):
        await asyncio.gather(*(stream(replicas, tenant, seen, chance) for _ in range(CALLERS)))
    return seen


async def test_settled_plus_leased_never_exceeds_the_limit_by_more_than_a_lease(
    postgres: Cluster, replicas: list[Replica], tenant: str
) -> None:
    limit, each_session = 20_000, 2_000  # about a third of what the callers want
    await replicas[0].limit(tenant, limit)
    await replicas[0].limit(tenant, each_session, level=Level.SESSION, name="*")
    seen = await run(postgres, replicas, tenant)
    assert len(seen.most) == 1 + SESSIONS  # the tenant's counter, and one a session
    assert seen.most.pop("tenant:") <= limit
    assert max(seen.most.values()) <= each_session
    assert seen.states > CALLERS
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
