"""Parts of the cost service for tests: prices, ledgers on a store, and calls."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from services.cost import price_document
from services.cost.alerts import AlertBoard, Lookout, Watchfulness
from services.cost.budget import Level, Limits, Path, Window
from services.cost.budgets import Budgets
from services.cost.ledger import Ledger
from services.cost.price_shelf import PriceShelf
from services.cost.prices import PriceBook, Usage
from services.cost.report_store import AlertKind, ReportStore
from services.cost.reports import Reports
from services.cost.reports_memory import MemoryReportStore
from services.cost.reports_postgres import PostgresReportStore
from services.cost.store import Call, CostStore
from services.cost.store_memory import MemoryCostStore
from services.cost.store_postgres import PostgresCostStore
from services.cost.velocity import Rule
from services.cost.watch import Watch
from shared.clock import Clock
from shared.ids import Ids, RandomIds
from shared.risks import Tell, untold

UNIT = "micro-USD per million tokens"


def book(*prices: dict[str, Any], **more: Any) -> PriceBook:
    """A price book of these entries."""
    return price_document.parse(document(*prices, **more))


def document(*prices: dict[str, Any], **more: Any) -> str:
    entries = [{"provider": "p", "model": "m"} | price for price in prices]
    return json.dumps({"currency": UNIT, "prices": entries} | more)


# One micro-USD a token read, half of it from the cache, two a token produced.
PRICES = book({"input": 1_000_000, "cached_input": 500_000, "output": 2_000_000})
TTL = timedelta(minutes=2)
WATCHFULNESS = Watchfulness(
    rules=(Rule(AlertKind.VELOCITY, 5.0, 1_000_000), Rule(AlertKind.TOKEN_SPIKE, 5.0, 200_000)),
    downgrade_for=timedelta(minutes=10),
    anomaly_floor=100_000,
)


@dataclass(frozen=True, slots=True)
class Replica:
    """What one process of the cost service works with."""

    store: CostStore
    shelf: PriceShelf
    ledger: Ledger
    budgets: Budgets
    alerts: ReportStore
    reports: Reports
    lookout: Lookout
    watch: Watch

    async def reserve(self, tenant: str, call: Call, output_tokens: int, *, input_tokens: int = 0) -> int:
        """How much was set aside."""
        usage = Usage(input_tokens, output_tokens)
        return (await self.ledger.reserve(tenant, call, usage)).lease.micros_usd

    async def limit(self, tenant: str, limit: int, **more: Any) -> str:
        """Sets a budget; its id."""
        return (await self.budgets.set(tenant, Limits(limit, **more))).id

    async def spent(
        self, tenant: str, level: Level = Level.TENANT, name: str = "", window: Window = Window.TOTAL
    ) -> tuple[int, int]:
        """Settled and leased."""
        found = await self.budgets.get(tenant, level, name, window)
        return found.settled, found.leased


def cost_replica(
    store: CostStore,
    clock: Clock,
    *,
    prices: PriceBook = PRICES,
    ids: Ids | None = None,
    watchfulness: Watchfulness = WATCHFULNESS,
    tell: Tell = untold,
) -> Replica:
    ids = ids or RandomIds()
    stored = report_store(store)
    shelf, reports = PriceShelf(store, prices, clock=clock), Reports(store, stored, clock=clock)
    board = AlertBoard(stored, clock=clock)
    lookout = Lookout(store, stored, reports, board, watchfulness, clock=clock, ids=ids, tell=tell)
    return Replica(
        store=store,
        shelf=shelf,
        ledger=Ledger(store, shelf, board, clock=clock, ids=ids, lease_ttl=TTL),
        budgets=Budgets(store, clock=clock, ids=ids),
        alerts=stored,
        reports=reports,
        lookout=lookout,
        watch=Watch(lookout, clock=clock, every=timedelta(seconds=15)),
    )


def report_store(store: CostStore) -> ReportStore:
    """Of the same kind, on the same data."""
    if isinstance(store, PostgresCostStore):
        return PostgresReportStore(store.database)
    assert isinstance(store, MemoryCostStore)
    return MemoryReportStore(store)


def call(name: str = "g", *, attempt: int = 0, provider: str = "p", model: str = "m", **path: str) -> Call:
    """A call of its own generation, on the path named."""
    return Call(f"{name}-{RandomIds().new('g')}", provider, model, Path(**path), attempt=attempt)
