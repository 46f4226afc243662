"""The orchestrator as a real server on a loopback port, on memory stores, with a scripted model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from agentnet.orchestrator.v1 import (
    agent_service_pb2_grpc,
    checkpoint_service_pb2_grpc,
    evaluation_service_pb2_grpc,
    history_service_pb2_grpc,
    input_service_pb2_grpc,
    session_service_pb2_grpc,
    task_graph_service_pb2_grpc,
    turn_service_pb2_grpc,
)
from services.orchestrator.drivers.postgres import PostgresDriver, draining
from services.orchestrator.evaluation.service import EvaluationService
from services.orchestrator.main import SERVICES
from services.orchestrator.service import AgentService, SessionService, add_to_server
from services.orchestrator.service_checkpoints import CheckpointService
from services.orchestrator.service_graphs import TaskGraphService
from services.orchestrator.service_histories import HistoryService
from services.orchestrator.service_inputs import InputService, TurnService
from shared.errors import MeshError
from shared.rpc.channel import mesh_channel
from shared.rpc.server import serving
from shared.rpc.status import from_rpc
from shared.settings import MeshSettings
from shared.tasks import supervised
from tests.support.agents import Surroundings
from tests.support.evaluation import Laboratory
from tests.support.identity import Keys, make_keys
from tests.support.orchestrator import POLL, TTL, World


@dataclass(frozen=True, slots=True)
class Mesh:
    """A served orchestrator and the stubs to call it."""

    world: World
    keys: Keys
    agents: Any
    sessions: Any
    task_graphs: Any
    evaluations: Any
    checkpoints: Any
    histories: Any
    address: str
    inputs: Any
    turns: Any
    laboratory: Laboratory
    channel: Any
    around: Surroundings

    def me(self, tenant: str = "acme") -> tuple[tuple[str, str], ...]:
        return self.keys.metadata(tenant)

    async def ask(self, call: Any, request: Any, *, tenant: str = "acme", timeout: float = 10) -> Any:
        return await call(request, metadata=self.me(tenant), timeout=timeout)

    async def refused(self, call: Any, request: Any, *, tenant: str = "acme", timeout: float = 10) -> MeshError:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call(request, metadata=self.me(tenant), timeout=timeout)
        return from_rpc(raised.value)


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    world, keys = World(), make_keys(tmp_path)
    laboratory = Laboratory(world)
    around = Surroundings(world)
    given = {"listen": "127.0.0.1:0", "postgres_dsn": "postgres://nowhere", "identity_keys": keys.jwks}
    settings = MeshSettings.model_validate(given | {"drain_grace": 0})

    async def register(server: grpc.aio.Server, stack: AsyncExitStack) -> None:
        driver = PostgresDriver(world.leases, world.runs(), "one", TTL, POLL, 9)
        world.leases.hear.append(driver.wake)
        await stack.enter_async_context(draining(driver))
        await stack.enter_async_context(supervised("claim", driver.claim))
        worker = laboratory.worker()
        stack.push_async_callback(worker.drain)
        await stack.enter_async_context(supervised("cases", worker.claim))
        agent_service_pb2_grpc.add_AgentServiceServicer_to_server(AgentService(world.agents, world.sessions), server)
        add_to_server(SessionService(world.sessions, world.clock), server)
        task_graph_service_pb2_grpc.add_TaskGraphServiceServicer_to_server(
            TaskGraphService(world.graphs, world.planner), server
        )
        input_service_pb2_grpc.add_InputServiceServicer_to_server(InputService(world.inputs), server)
        turn_service_pb2_grpc.add_TurnServiceServicer_to_server(TurnService(world.sessions), server)
        checkpoint_service_pb2_grpc.add_CheckpointServiceServicer_to_server(CheckpointService(world.graphs), server)
        evaluation_service_pb2_grpc.add_EvaluationServiceServicer_to_server(
            EvaluationService(laboratory.evaluations), server
        )
        around.side.add_to_server(server)
        histories = HistoryService(world.histories)
        history_service_pb2_grpc.add_HistoryServiceServicer_to_server(histories, server)

    async with serving(settings, register, service_names=SERVICES) as address:
        async with mesh_channel(address, services=SERVICES) as channel:
            yield Mesh(
                world,
                keys,
                agent_service_pb2_grpc.AgentServiceStub(channel),
                session_service_pb2_grpc.SessionServiceStub(channel),
                task_graph_service_pb2_grpc.TaskGraphServiceStub(channel),
                evaluation_service_pb2_grpc.EvaluationServiceStub(channel),
                checkpoint_service_pb2_grpc.CheckpointServiceStub(channel),
                history_service_pb2_grpc.HistoryServiceStub(channel),
                address,
                input_service_pb2_grpc.InputServiceStub(channel),
                turn_service_pb2_grpc.TurnServiceStub(channel),
                laboratory,
                channel,
                around,
            )
