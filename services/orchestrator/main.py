"""The composition root of the orchestrator service."""

from __future__ import annotations

import secrets
from contextlib import AsyncExitStack

import grpc

from agentnet.orchestrator.v1 import (
    agent_service_pb2_grpc,
    checkpoint_service_pb2_grpc,
    evaluation_service_pb2_grpc,
    history_service_pb2_grpc,
    task_graph_service_pb2_grpc,
)
from services.orchestrator import unserved
from services.orchestrator.agents import Agents, read_agents
from services.orchestrator.checkpoints.keeper import Checkpoints
from services.orchestrator.checkpoints.places import checkpoint_store
from services.orchestrator.drivers.graph import GraphDriver
from services.orchestrator.drivers.postgres import PostgresDriver, draining, listen
from services.orchestrator.drivers.runs import Runs
from services.orchestrator.drivers.session import SessionDriver
from services.orchestrator.histories import Histories
from services.orchestrator.leases_postgres import PostgresLeaseStore, Renewal
from services.orchestrator.peers_grpc import SERVICES as PEERS
from services.orchestrator.peers_grpc import GrpcInference, GrpcMemory
from services.orchestrator.planner import Planner
from services.orchestrator.service import AGENTS, SESSIONS, AgentService, SessionService, add_to_server
from services.orchestrator.service_checkpoints import CHECKPOINTS, CheckpointService
from services.orchestrator.service_graphs import TASK_GRAPHS, TaskGraphService
from services.orchestrator.service_histories import HISTORIES, HistoryService
from services.orchestrator.sessions import Sessions
from services.orchestrator.settings import OrchestratorSettings
from services.orchestrator.store_postgres import PostgresAgentStore, PostgresSessionStore
from services.orchestrator.tail import RedisTail
from services.orchestrator.task_graphs import TaskGraphs
from services.orchestrator.tasks import Tasks
from services.orchestrator.turns import Turns
from services.orchestrator.watch import Watcher
from shared.clock import SystemClock
from shared.identity import Signer
from shared.ids import RandomIds
from shared.postgres import Database, open_database
from shared.redis import open_redis
from shared.rpc.channel import mesh_channel
from shared.rpc.server import run
from shared.tasks import supervised

SERVICES = (
    AGENTS,
    SESSIONS,
    HISTORIES,
    TASK_GRAPHS,
    CHECKPOINTS,
    "agentnet.orchestrator.v1.EvaluationService",
)


def main() -> None:
    settings = OrchestratorSettings.load()

    async def register(server: grpc.aio.Server, stack: AsyncExitStack) -> None:
        clock, ids = SystemClock(), RandomIds()
        dsn = settings.postgres_dsn.get_secret_value()
        database = await stack.enter_async_context(open_database(dsn, pool=settings.postgres_pool, stateless=True))
        redis = await stack.enter_async_context(open_redis(settings.redis_url.get_secret_value()))
        tail = RedisTail(redis, ttl=settings.tail_ttl)
        await stack.enter_async_context(supervised("tail", tail.listen))
        store = PostgresSessionStore(database, log_key=settings.log_key.get_secret_value().encode())
        defaults = read_agents(settings.default_agents)
        agents = Agents(PostgresAgentStore(database), defaults, clock=clock, ids=ids)
        watcher = Watcher(store, tail, poll=settings.poll)
        sessions = Sessions(store, agents, watcher, clock, ids, settings.heartbeat)
        checkpoints = Checkpoints(checkpoint_store(settings.checkpoints, database), clock, ids)
        tasks = await _drive(settings, stack, store, tail, agents, checkpoints=checkpoints)
        graphs = TaskGraphs(store, tail, agents, checkpoints, clock, ids)
        planner = Planner(tasks, tasks.inference, ids, settings.plan_max_output_tokens)
        agent_service_pb2_grpc.add_AgentServiceServicer_to_server(AgentService(agents, sessions), server)
        add_to_server(SessionService(sessions, clock), server)
        histories = Histories(store, agents, clock, ids, settings.max_takeovers)
        history_service_pb2_grpc.add_HistoryServiceServicer_to_server(HistoryService(histories), server)
        task_graph_service_pb2_grpc.add_TaskGraphServiceServicer_to_server(TaskGraphService(graphs, planner), server)
        checkpoint_service_pb2_grpc.add_CheckpointServiceServicer_to_server(CheckpointService(graphs), server)
        evaluation_service_pb2_grpc.add_EvaluationServiceServicer_to_server(unserved.EvaluationService(), server)

    run("orchestrator", settings, register, service_names=SERVICES)


async def _drive(
    settings: OrchestratorSettings,
    stack: AsyncExitStack,
    store: PostgresSessionStore,
    tail: RedisTail,
    agents: Agents,
    *,
    checkpoints: Checkpoints,
) -> Tasks:
    """Starts the driver; everything it uses closes after it."""
    clock = SystemClock()
    if settings.identity_private_key is None:
        raise ValueError("orchestrator needs AGENTNET_IDENTITY_PRIVATE_KEY")
    signer = Signer.from_file("orchestrator", settings.identity_private_key, clock)
    channel = await stack.enter_async_context(mesh_channel(settings.mesh_address, services=PEERS))
    driver_dsn = settings.driver_dsn.get_secret_value()
    leases: Database = await stack.enter_async_context(open_database(driver_dsn, pool=2))
    owner = f"orchestrator-{secrets.token_hex(6)}"
    inference = GrpcInference(channel, signer)
    tasks = Tasks(agents, inference, clock, settings.max_output_tokens)
    turns = Turns(
        agents=agents,
        inference=inference,
        memory=GrpcMemory(channel, signer),
        clock=clock,
        ids=RandomIds(),
        max_output_tokens=settings.max_output_tokens,
    )
    driver = PostgresDriver(
        leases=PostgresLeaseStore(leases),
        runs=Runs(
            {
                "session": SessionDriver(store, tail, turns, clock, settings.max_takeovers),
                "graph": GraphDriver(store, tail, tasks, checkpoints, clock, settings.max_takeovers),
            }
        ),
        owner=owner,
        ttl=settings.lease_ttl,
        poll=settings.poll,
        limit=settings.max_sessions,
    )
    renewal = stack.enter_context(Renewal(driver_dsn, owner, ttl=settings.lease_ttl, driven=driver.driven))
    await stack.enter_async_context(draining(driver))
    await stack.enter_async_context(supervised("guard", lambda: driver.guard(renewal)))
    await stack.enter_async_context(supervised("listen", lambda: listen(driver_dsn, driver)))
    await stack.enter_async_context(supervised("claim", driver.claim))
    return tasks
