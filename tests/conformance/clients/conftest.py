"""An edge with a scripted inference behind it, for clients that others wrote."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio

from tests.support.edge import Edge, running_edge
from tests.support.scripted_inference import ScriptedInference
from tests.support.scripted_orchestrator import serve_orchestrator


@pytest.fixture(scope="module")
def inference() -> ScriptedInference:
    return ScriptedInference()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(inference: ScriptedInference, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    def serve(server: grpc.aio.Server) -> None:
        inference.serve(server)
        serve_orchestrator(server)

    limits = {"model:words-limited": {"per_second": 0.05, "burst": 1}}
    async with running_edge(tmp_path_factory.mktemp("edge"), serve=serve, limits=limits) as running:
        yield running
