"""One suite for both ledgers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from deploy.local.postgres import Cluster
from services.cost.errors import BudgetExhausted, SettledDifferently
from services.cost.ledger import Call, Ledger
from services.cost.prices import PriceBook, Usage
from services.cost.store import Filter
from services.cost.store_memory import MemoryCostStore
from services.cost.store_postgres import PostgresCostStore
from shared.clock import FakeClock
from shared.ids import RandomIds
from shared.paging import Page
from shared.postgres import open_database

PRICES = PriceBook(
    '{"currency": "micro-USD per million tokens", "prices": '
    '[{"provider": "p", "model": "m", "input": 1000000, "cached_input": 500000, "output": 2000000}]}'
)


@pytest.fixture(params=["memory", "postgres"])
async def store(request: pytest.FixtureRequest, postgres: Cluster) -> AsyncIterator[Any]:
    if request.param == "memory":
        yield MemoryCostStore()
        return
    async with open_database(postgres.dsn("cost"), pool=20) as database:
        yield PostgresCostStore(database)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def ledger(store: Any, clock: FakeClock) -> Ledger:
    return Ledger(store, PRICES, clock=clock, ids=RandomIds(), lease_ttl=timedelta(minutes=2))


@pytest.fixture
def tenant() -> str:
    return RandomIds().new("t").lower().replace("_", "-")


def call(name: str, **more: str) -> Call:
    return Call(f"{name}-{RandomIds().new('g')}", "p", "m", **more)


async def test_a_settlement_is_priced_exactly_and_written_once(ledger: Ledger, tenant: str) -> None:
    paid = call("once", session_id="s", agent="A@1.0.0")
    first = await ledger.settle(tenant, paid, Usage(10, 5, cached_input_tokens=4))
    again = await ledger.settle(tenant, paid, Usage(10, 5, cached_input_tokens=4))
    assert first.micros_usd == 6 + 2 + 10
    assert again == first
    with pytest.raises(SettledDifferently):
        await ledger.settle(tenant, paid, Usage(10, 6))
    (summary,) = await ledger.summarize(tenant, Filter(), group_by=("model", "agent"), page=Page())
    assert (summary.group, summary.micros_usd, summary.generations) == (("m", "A@1.0.0"), 18, 1)


async def test_a_reservation_beyond_the_budget_is_refused_and_a_settlement_gives_the_rest_back(
    ledger: Ledger, tenant: str
) -> None:
    await ledger.set_budget(tenant, 100)
    first = call("first")
    await ledger.reserve(tenant, first, input_tokens=0, output_tokens=40)
    with pytest.raises(BudgetExhausted):
        await ledger.reserve(tenant, call("second"), input_tokens=0, output_tokens=20)
    await ledger.settle(tenant, first, Usage(0, 10))
    budget = await ledger.budget(tenant)
    assert (budget.settled, budget.leased) == (20, 0)
    lease, _ = await ledger.reserve(tenant, call("third"), input_tokens=0, output_tokens=40)
    assert lease.micros_usd == 80


async def test_a_lease_that_ended_counts_no_more(ledger: Ledger, tenant: str, clock: FakeClock) -> None:
    await ledger.set_budget(tenant, 100)
    await ledger.reserve(tenant, call("left"), input_tokens=0, output_tokens=50)
    clock.advance(timedelta(minutes=3))
    lease, _ = await ledger.reserve(tenant, call("next"), input_tokens=0, output_tokens=50)
    assert lease.micros_usd == 100


async def test_many_at_once_never_exceed_the_budget(ledger: Ledger, tenant: str) -> None:
    await ledger.set_budget(tenant, 1000)

    async def one(number: int) -> bool:
        try:
            await ledger.reserve(tenant, call(f"n{number}"), input_tokens=0, output_tokens=35)
        except BudgetExhausted:
            return False
        return True

    granted = sum(await asyncio.gather(*(one(number) for number in range(100))))
    assert granted == 1000 // 70
    assert (await ledger.budget(tenant)).leased == granted * 70


async def test_another_tenant_sees_nothing(ledger: Ledger, tenant: str) -> None:
    await ledger.settle(tenant, call("mine"), Usage(1, 1))
    assert await ledger.events("another", Filter(), newest_first=True, page=Page()) == []


async def test_events_page_by_time_without_gap_or_repetition(ledger: Ledger, tenant: str, clock: FakeClock) -> None:
    for number in range(5):
        clock.advance(timedelta(seconds=1))
        await ledger.settle(tenant, call(f"e{number}"), Usage(number, 1))
    seen, cursor = [], ()
    while True:
        found = await ledger.events(tenant, Filter(), newest_first=False, page=Page(2, cursor))
        seen += [event.usage.input_tokens for event in found[:2]]
        if len(found) < 3:
            break
        cursor = (found[1].created_at.isoformat(), found[1].id)
    assert seen == [0, 1, 2, 3, 4]


async def test_the_database_keeps_the_ledger_append_only_and_tenants_apart(postgres: Cluster) -> None:
    connection = await asyncpg.connect(postgres.dsn("cost"))
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("update cost_event set cost_micros_usd = 0")
        assert await connection.fetchval("select count(*) from cost_event") == 0  # no tenant set: nothing is seen
    finally:
        await connection.close()
    owner = await asyncpg.connect(postgres.dsn("owner"))
    try:
        with pytest.raises(asyncpg.RestrictViolationError):
            await owner.execute("delete from cost.cost_event")
    finally:
        await owner.close()
