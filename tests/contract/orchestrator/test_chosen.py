"""The driver that the settings choose, on real leases: it hears of runs, renews, drives and gives back."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agentnet.orchestrator.v1 import session_pb2, task_graph_pb2
from deploy.local.postgres import Cluster
from services.orchestrator.drivers.chosen import start_driver
from services.orchestrator.drivers.runs import Runs
from services.orchestrator.graphs import shapes
from services.orchestrator.settings import OrchestratorSettings
from services.orchestrator.store import KeptGraph
from services.orchestrator.store_postgres import PostgresSessionStore
from shared.ids import RandomIds
from tests.contract.orchestrator.conftest import Stores, _in_postgres
from tests.support.graphs import node
from tests.support.orchestrator import ADA, TENANT, World
from tests.support.temporal import temporal_address

__all__ = ("temporal_address",)


@pytest.fixture(params=["postgres", pytest.param("temporal", marks=pytest.mark.heavy)])
def settings(request: pytest.FixtureRequest, postgres: Cluster, tmp_path: Path) -> OrchestratorSettings:
    given = {
        "listen": "127.0.0.1:0", "postgres_dsn": postgres.dsn("orchestrator"), "identity_keys": tmp_path / "none",
        "driver_dsn": postgres.dsn("orchestrator_driver"), "log_key": "k", "driver": request.param,
        "lease_ttl": timedelta(seconds=2), "poll": timedelta(seconds=20), "temporal_queue": tmp_path.name,
    }  # fmt: skip
    if request.param == "temporal":
        given["temporal_address"] = request.getfixturevalue("temporal_address")
        given["poll"] = timedelta(milliseconds=200)
    return OrchestratorSettings.model_validate(given)


async def executed(world: World, stores: Stores, *nodes: task_graph_pb2.TaskNode) -> KeptGraph:
    graphs = replace(world.graphs, store=stores.sessions, ids=RandomIds())
    return await graphs.execute(ADA, shapes.graph(task_graph_pb2.TaskGraph(nodes=nodes)), request_id=None)


async def ended(stores: Stores, kept: KeptGraph) -> session_pb2.Session:
    async with asyncio.timeout(60):
        while True:
            session = await stores.sessions.find(TENANT, kept.session.id)
            if session is not None and session.HasField("end_time"):
                return session
            await asyncio.sleep(0.02)


async def test_runs_are_heard_of_driven_and_given_back(
    settings: OrchestratorSettings, postgres: Cluster, admin: Any
) -> None:
    world = World()
    async with _in_postgres(postgres) as stores:
        runs = Runs({"graph": world.graph_driver(store=stores.sessions)})
        async with AsyncExitStack() as stack:
            assert isinstance(stores.sessions, PostgresSessionStore)
            await start_driver(settings, stack, runs, stores.leases, "one", accepting=stores.sessions)
            first = await ended(stores, await executed(world, stores, node("a"), node("b", "a")))
            # Nobody hears while there is no connection; who listens again looks everywhere.
            await admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() "
                "and query ilike '%listen%wake%'"
            )
            second = await ended(stores, await executed(world, stores, node("a")))
            world.inference.held_at = len(world.inference.started) + 1
            kept = await executed(world, stores, node("a"), node("b", "a"))
            while not await _owner(admin, kept.session.id):
                await asyncio.sleep(0.02)
        assert await _owner(admin, kept.session.id) is None, "what was driven is free at once"
    assert (first.status, second.status) == (session_pb2.SESSION_STATUS_COMPLETED,) * 2


async def _owner(admin: Any, session_id: str) -> str | None:
    found: str | None = await admin.fetchval(
        "select owner from orchestrator.session_lease where session_id = $1", session_id
    )
    return found
