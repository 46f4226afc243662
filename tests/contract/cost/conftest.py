"""Both stores of the ledger, the real one with fast commits watched over as the service has them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from deploy.local.postgres import Cluster
from services.cost.redo import Redo
from services.cost.store import CostStore
from services.cost.store_memory import MemoryCostStore
from services.cost.store_postgres import SQL, PostgresCostStore
from shared.clock import FakeClock
from shared.ids import RandomIds
from shared.postgres import open_database
from tests.support.cost import Replica, cost_replica


@pytest.fixture(params=["memory", "postgres", "postgres, fast commits"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[CostStore]:
    if request.param == "memory":
        yield MemoryCostStore()
        return
    postgres: Cluster = request.getfixturevalue("postgres")
    async with open_database(postgres.dsn("cost"), pool=4, stateless=True) as database:
        redo = Redo(database, barrier=SQL["make_durable"])
        if request.param == "postgres":
            yield PostgresCostStore(database)
            return
        async with redo.watched():
            yield PostgresCostStore(database, redo)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def replica(store: CostStore, clock: FakeClock) -> Replica:
    return cost_replica(store, clock)


@pytest.fixture
def tenant() -> str:
    return RandomIds().new("t").lower().replace("_", "-")
