"""The composition root of the cost service."""

from __future__ import annotations

from contextlib import AsyncExitStack

import grpc

from agentnet.cost.v1 import cost_service_pb2_grpc as rpc
from services.cost.ledger import Ledger
from services.cost.prices import PriceBook
from services.cost.service import CostService
from services.cost.settings import CostSettings
from services.cost.store_postgres import PostgresCostStore
from shared.clock import SystemClock
from shared.ids import RandomIds
from shared.postgres import open_database
from shared.rpc.server import run

SERVICES = ("agentnet.cost.v1.CostService",)


def main() -> None:
    settings = CostSettings.load()

    async def register(server: grpc.aio.Server, stack: AsyncExitStack) -> None:
        dsn = settings.postgres_dsn.get_secret_value()
        database = await stack.enter_async_context(open_database(dsn, pool=settings.postgres_pool))
        ledger = Ledger(
            PostgresCostStore(database),
            PriceBook.from_file(settings.prices),
            clock=SystemClock(),
            ids=RandomIds(),
            lease_ttl=settings.lease_ttl,
        )
        rpc.add_CostServiceServicer_to_server(CostService(ledger), server)

    run("cost", settings, register, service_names=SERVICES)
