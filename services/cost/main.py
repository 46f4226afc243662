"""The composition root of the cost service."""

from __future__ import annotations

from contextlib import AsyncExitStack

import grpc

from agentnet.cost.v1 import (
    budget_service_pb2_grpc,
    cost_service_pb2_grpc,
    price_service_pb2_grpc,
    report_service_pb2_grpc,
    till_service_pb2_grpc,
)
from services.cost import price_document
from services.cost.alerts import AlertBoard, Lookout, Watchfulness
from services.cost.budgets import Budgets
from services.cost.ledger import Ledger
from services.cost.metrics import SpendMeter
from services.cost.price_shelf import PriceShelf
from services.cost.redo import Redo
from services.cost.report_store import AlertKind
from services.cost.reports import Reports
from services.cost.reports_postgres import PostgresReportStore
from services.cost.service import CostService
from services.cost.service_budget import BudgetService, PriceService
from services.cost.service_report import ReportService
from services.cost.service_till import TillService
from services.cost.settings import CostSettings
from services.cost.store_postgres import SQL, PostgresCostStore
from services.cost.velocity import STEP, Rule
from services.cost.watch import Watch
from shared.clock import Clock, SystemClock
from shared.identity import Signer, Verifier
from shared.ids import RandomIds
from shared.postgres import open_database
from shared.risks import NAME as RISKS
from shared.risks import Tell, reporting, untold
from shared.rpc.channel import mesh_channel
from shared.rpc.server import run
from shared.tasks import supervised

SERVICES = tuple(f"agentnet.cost.v1.{name}Service" for name in ("Cost", "Budget", "Price", "Report", "Till"))


def main() -> None:
    settings = CostSettings.load()

    async def register(server: grpc.aio.Server, stack: AsyncExitStack) -> None:
        clock, ids = SystemClock(), RandomIds()
        dsn = settings.postgres_dsn.get_secret_value()
        database = await stack.enter_async_context(
            open_database(dsn, pool=settings.postgres_pool + 1, stateless=True)  # one more: redo keeps one
        )
        redo = Redo(database, barrier=SQL["make_durable"])
        if not settings.wait_for_disk:
            await stack.enter_async_context(redo.watched())
        store = PostgresCostStore(database, redo)
        shelf = PriceShelf(store, price_document.read(settings.prices), clock=clock)
        await shelf.publish()
        budgets = Budgets(store, clock=clock, ids=ids)
        stored = PostgresReportStore(database)
        board, reports = AlertBoard(stored, clock=clock), Reports(store, stored, clock=clock)
        tell = await _telling(settings, stack, clock)
        lookout = Lookout(store, stored, reports, board, watchfulness(settings), clock=clock, ids=ids, tell=tell)
        watch = Watch(lookout, clock=clock, every=settings.watch_every)
        await stack.enter_async_context(supervised("watch", watch.run))
        ledger = Ledger(store, shelf, board, clock=clock, ids=ids, lease_ttl=settings.lease_ttl)
        cost = CostService(ledger, budgets, SpendMeter(), watch, clock)
        cost_service_pb2_grpc.add_CostServiceServicer_to_server(cost, server)
        till = TillService(cost, Verifier.from_file(settings.identity_keys, clock))
        till_service_pb2_grpc.add_TillServiceServicer_to_server(till, server)
        budget_service_pb2_grpc.add_BudgetServiceServicer_to_server(BudgetService(budgets, clock), server)
        price_service_pb2_grpc.add_PriceServiceServicer_to_server(PriceService(shelf), server)
        report = ReportService(reports, stored, clock)
        report_service_pb2_grpc.add_ReportServiceServicer_to_server(report, server)

    run("cost", settings, register, service_names=SERVICES)


async def _telling(settings: CostSettings, stack: AsyncExitStack, clock: Clock) -> Tell:
    """Tells policy of risks; nobody where there is no key to sign with. What one session took counts once in the five
    minutes that alerts look at.
    """
    if settings.identity_private_key is None:
        return untold
    signer = Signer.from_file("cost", settings.identity_private_key, clock)
    channel = await stack.enter_async_context(
        mesh_channel(settings.mesh_address, services=(RISKS,), tls=settings.tls_folder)
    )
    return (await stack.enter_async_context(reporting(channel, signer, "cost", clock, quiet=STEP))).tell


def watchfulness(settings: CostSettings) -> Watchfulness:
    """What the settings say is worth an alert."""
    factor = settings.velocity_factor
    return Watchfulness(
        rules=(
            Rule(AlertKind.VELOCITY, factor, settings.velocity_floor_micros_usd),
            Rule(AlertKind.TOKEN_SPIKE, factor, settings.token_spike_floor),
        ),
        downgrade_for=settings.downgrade_for,
        anomaly_floor=settings.anomaly_floor_micros_usd,
    )
