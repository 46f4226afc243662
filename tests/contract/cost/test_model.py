"""Random lives of a ledger: Postgres answers as the ledger in memory does, and its own figures agree with each other."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from deploy.local.postgres import Cluster
from services.cost.budget import EACH, Level, Limits, Path, SoftAction, Window
from services.cost.prices import Usage
from services.cost.store import Call, Filter
from services.cost.store_memory import MemoryCostStore
from services.cost.store_postgres import PostgresCostStore
from shared.clock import FakeClock
from shared.errors import MeshError
from shared.ids import SequentialIds
from shared.paging import Page
from shared.postgres import Database, open_database
from tests.support.cost import Replica, cost_replica

STEPS = 120
CHECKS = {
    "counters count what leases hold": """
        select count(*) from budget_counter c where leased_micros_usd <> coalesce(
          (select sum(l.micros_usd) from lease l where c.id = any(l.counters)), 0)""",
    "hours are the sums of their entries": """
        select count(*) from (select hour, provider, model, agent_name, sum(entries), sum(cost_micros_usd) from hour_sums
        group by 1, 2, 3, 4
        except select date_trunc('hour', created_at, 'UTC'), provider, model, agent_name, count(*), sum(cost_micros_usd)
        from cost_event group by 1, 2, 3, 4) x""",
    "days are the sums of their entries": """
        select count(*) from (select day, provider, model, agent_name, sum(entries), sum(tokens_output) from day_sums
        group by 1, 2, 3, 4
        except select date_trunc('day', created_at, 'UTC'), provider, model, agent_name, count(*), sum(tokens_output)
        from cost_event group by 1, 2, 3, 4) x""",
    "each person's hours are the sums of their entries": """
        select count(*) from (select hour, team, user_id, sum(entries), sum(tokens_input) from hour_parts where personal
        group by 1, 2, 3
        except select date_trunc('hour', created_at, 'UTC'), team, user_id, count(*), sum(tokens_input)
        from cost_event group by 1, 2, 3) x""",
    "each person's days are the sums of their entries": """
        select count(*) from (select day, team, user_id, sum(estimated), sum(cost_micros_usd) from day_parts where personal
        group by 1, 2, 3
        except select date_trunc('day', created_at, 'UTC'), team, user_id, count(*) filter (where estimated),
        sum(cost_micros_usd) from cost_event group by 1, 2, 3) x""",
    "no roll-up lacks an entry": """
        select count(distinct entries) - 1 from (
          select sum(entries) as entries from hour_sums union all select sum(entries) from day_sums
          union all select sum(entries) from hour_parts group by personal
          union all select sum(entries) from day_parts group by personal
          union all select nullif(count(*), 0) from cost_event) x where entries > 0""",
    "an entry's dollars are its micro-dollars": """
        select count(*) from cost_event where cost_usd * 1000000 <> cost_micros_usd""",
}


@pytest.fixture
async def database(postgres: Cluster) -> AsyncIterator[Database]:
    async with open_database(postgres.dsn("cost"), pool=4, stateless=True) as found:
        yield found


class Life:
    """One sequence of random steps, taken by two ledgers with the same clock."""

    def __init__(self, seed: int, replicas: list[Replica], clock: FakeClock, tenant: str) -> None:
        self.chance = random.Random(seed)
        self.replicas = replicas
        self.clock = clock
        self.tenant = tenant
        self.calls: list[Call] = []

    def path(self) -> Path:
        pick = self.chance.choice
        return Path(pick(("", "red")), pick(("ada", "bob")), pick(("A@1", "A@2", "B@1")), pick(("", "s1", "s2")))

    def limits(self) -> Limits:
        level = self.chance.choice(list(Level)[:5])
        names = {
            Level.TENANT: ("",),
            Level.TEAM: ("red",),
            Level.USER: ("ada",),
            Level.AGENT: ("A@1", "A", EACH),
            Level.SESSION: ("s1", EACH),
        }
        limit = self.chance.randrange(2000)
        return Limits(
            limit, level, self.chance.choice(names[level]), self.chance.choice(list(Window)),
            self.chance.choice((0, limit // 2)), self.chance.choice(list(SoftAction)),
        )  # fmt: skip

    async def step(self) -> None:
        self.clock.advance(timedelta(seconds=self.chance.choice((1, 30, 100, 1900))))
        kind = self.chance.choice(
            ("reserve",) * 4 + ("again",) + ("extend",) * 3 + ("settle",) * 4 + ("limit", "reclaim")
        )
        call = self.chance.choice(self.calls) if self.calls else None
        if kind == "reserve" or call is None:
            call = Call(f"g{len(self.calls)}", "p", "m", self.path())
            self.calls.append(call)
            kind = "reserve"
        arguments = (self.chance.randrange(1, 100), self.limits())
        answers = [await self.answer(replica, kind, call, *arguments) for replica in self.replicas]
        assert answers[0] == answers[1], (kind, call)

    async def answer(self, replica: Replica, kind: str, call: Call, tokens: int, limits: Limits) -> Any:
        try:
            match kind:
                case "reserve" | "again":
                    reserved = await replica.ledger.reserve(self.tenant, call, Usage(5, tokens))
                    return reserved.lease, {(one.scope, one.window, one.action) for one in reserved.passed}
                case "extend":
                    return (await replica.ledger.extend(self.tenant, call.generation_id, output_tokens=tokens))[0]
                case "settle":
                    settled = await replica.ledger.settle(self.tenant, call, Usage(5, tokens % 50))
                    return settled.fresh, settled.event.micros_usd
                case "reclaim":  # which adds to roll-ups what is in none yet; Postgres may have given back before
                    await replica.store.reclaim(self.tenant, now=self.clock.now())
                    return None
                case _:
                    found = await replica.budgets.set(self.tenant, limits)
                    return found.settled, found.leased
        except MeshError as error:
            return error.reason_name

    async def figures(self, replica: Replica) -> Any:
        sums = [
            await replica.ledger.summarize(self.tenant, Filter(), group_by=names, page=Page())
            for names in (("agent", "day"), ("team", "user", "hour"), ("user",), ("team", "model"))
        ]
        budgets = await replica.budgets.list(self.tenant, Page(500))
        spent = [(one.limits, one.name, one.settled, one.leased) for one in budgets if one.limits.name != EACH]
        return sums, spent


@pytest.mark.parametrize("seed", range(8))
async def test_a_random_life_is_the_same_in_both_and_adds_up(database: Database, tenant: str, seed: int) -> None:
    clock = FakeClock()
    replicas = [
        cost_replica(store, clock, ids=SequentialIds()) for store in (MemoryCostStore(), PostgresCostStore(database))
    ]
    life = Life(seed, replicas, clock, tenant)
    for _ in range(STEPS):
        await life.step()
    first, second = [await life.figures(replica) for replica in replicas]
    assert first == second
    async with database.tenant(tenant) as connection:
        wrong = {what: await connection.fetchval(sql) for what, sql in CHECKS.items()}
    assert wrong == dict.fromkeys(CHECKS, 0)
