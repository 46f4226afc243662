"""A served cost service with the ledger in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from agentnet.cost.v1 import (
    budget_service_pb2_grpc,
    cost_service_pb2_grpc,
    price_service_pb2_grpc,
    report_service_pb2_grpc,
    till_service_pb2_grpc,
)
from services.cost.main import SERVICES
from services.cost.metrics import SpendMeter
from services.cost.service import CostService
from services.cost.service_budget import BudgetService, PriceService
from services.cost.service_report import ReportService
from services.cost.service_till import TillService
from services.cost.store_memory import MemoryCostStore
from shared.clock import FakeClock, SystemClock
from shared.identity import Verifier
from shared.ids import SequentialIds
from shared.rpc.channel import mesh_channel
from shared.rpc.server import serving
from shared.settings import MeshSettings
from tests.support.cost import Replica, cost_replica
from tests.support.identity import Keys, make_keys


@dataclass(frozen=True, slots=True)
class Served:
    """Stubs of the services, and what they stand on."""

    cost: Any
    budgets: Any
    prices: Any
    reports: Any
    till: Any
    channel: grpc.aio.Channel
    address: str
    replica: Replica
    clock: FakeClock


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return make_keys(tmp_path)


@pytest.fixture
async def served(keys: Keys) -> AsyncIterator[Served]:
    settings = MeshSettings.model_validate(
        {"listen": "127.0.0.1:0", "postgres_dsn": "postgres://nowhere", "identity_keys": keys.jwks, "drain_grace": 1}
    )
    clock = FakeClock()
    replica = cost_replica(MemoryCostStore(), clock, ids=SequentialIds())

    async def register(server: grpc.aio.Server, _stack: AsyncExitStack) -> None:
        cost = CostService(replica.ledger, replica.budgets, SpendMeter(), replica.watch, clock)
        cost_service_pb2_grpc.add_CostServiceServicer_to_server(cost, server)
        till = TillService(cost, Verifier.from_file(keys.jwks, SystemClock()))
        till_service_pb2_grpc.add_TillServiceServicer_to_server(till, server)
        budget_service_pb2_grpc.add_BudgetServiceServicer_to_server(BudgetService(replica.budgets, clock), server)
        price_service_pb2_grpc.add_PriceServiceServicer_to_server(PriceService(replica.shelf), server)
        report = ReportService(replica.reports, replica.alerts, clock)
        report_service_pb2_grpc.add_ReportServiceServicer_to_server(report, server)

    async with (
        serving(settings, register, service_names=SERVICES) as address,
        mesh_channel(address, services=SERVICES) as channel,
    ):
        yield Served(
            cost_service_pb2_grpc.CostServiceStub(channel),
            budget_service_pb2_grpc.BudgetServiceStub(channel),
            price_service_pb2_grpc.PriceServiceStub(channel),
            report_service_pb2_grpc.ReportServiceStub(channel),
            till_service_pb2_grpc.TillServiceStub(channel),
            channel,
            address,
            replica,
            clock,
        )
