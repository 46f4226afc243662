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
    input_service_pb2_grpc,
    task_graph_service_pb2_grpc,
    turn_service_pb2_grpc,
)
from services.orchestrator.agents import Agents, read_agents
from services.orchestrator.agents.cache import Versions
from services.orchestrator.agents.cache import listen as agents_changed
from services.orchestrator.agents.delegations import DelegationGate
from services.orchestrator.agents.herald import BusHerald
from services.orchestrator.agents.history_postgres import PostgresHappeningStore, PostgresHistoryStore
from services.orchestrator.agents.stores_postgres import (
    PostgresDelegationStore,
    PostgresRelationshipStore,
    PostgresTemplateStore,
)
from services.orchestrator.archives import Archive, Archivist
from services.orchestrator.checkpoints.keeper import Checkpoints
from services.orchestrator.checkpoints.places import checkpoint_store
from services.orchestrator.drivers.chosen import start_driver
from services.orchestrator.drivers.graph import GraphDriver
from services.orchestrator.drivers.runs import Runs
from services.orchestrator.drivers.session import SessionDriver
from services.orchestrator.evaluation.evaluations import Evaluations
from services.orchestrator.evaluation.service import EVALUATIONS, EvaluationService
from services.orchestrator.evaluation.store_postgres import PostgresEvaluationStore
from services.orchestrator.forks.effects import Origins
from services.orchestrator.histories import Histories
from services.orchestrator.holds import Holds
from services.orchestrator.inputs import Expiry, Inputs
from services.orchestrator.leases_postgres import PostgresLeaseStore
from services.orchestrator.peers_grpc import SERVICES as PEERS
from services.orchestrator.peers_grpc import GrpcInference, GrpcMemory
from services.orchestrator.peers_leave import SERVICE as OVERRIDES
from services.orchestrator.peers_leave import GrpcLeave
from services.orchestrator.peers_tools import GrpcTools
from services.orchestrator.planner import Planner
from services.orchestrator.preparing import Limits
from services.orchestrator.reasoning.governance import SERVICE as POLICY
from services.orchestrator.reasoning.governance import GrpcPolicy
from services.orchestrator.reasoning.skills import Skills
from services.orchestrator.reasoning.thinking import Thinking
from services.orchestrator.registration import SERVICES as AGENT_SIDE
from services.orchestrator.registration import AgentSide
from services.orchestrator.service import AGENTS, SESSIONS, AgentService, SessionService, add_to_server
from services.orchestrator.service_checkpoints import CHECKPOINTS, CheckpointService
from services.orchestrator.service_graphs import TASK_GRAPHS, TaskGraphService
from services.orchestrator.service_histories import HISTORIES, HistoryService
from services.orchestrator.service_inputs import INPUTS, TURNS, InputService, TurnService
from services.orchestrator.sessions import Sessions
from services.orchestrator.settings import OrchestratorSettings
from services.orchestrator.store_postgres import PostgresAgentStore, PostgresSessionStore
from services.orchestrator.tail import RedisTail
from services.orchestrator.task_graphs import TaskGraphs
from services.orchestrator.tasks import Tasks
from services.orchestrator.tool_tasks import ToolTasks
from services.orchestrator.toolwork import ToolWork
from services.orchestrator.turns import Turns
from services.orchestrator.watch import Watcher
from shared.bus import open_outlet
from shared.clock import SystemClock
from shared.identity import Signer
from shared.ids import RandomIds
from shared.objects import objects
from shared.postgres import Database, open_database
from shared.redis import open_redis
from shared.risks import NAME as RISKS
from shared.risks import reporting
from shared.rpc.channel import mesh_channel
from shared.rpc.server import run
from shared.tasks import supervised

SERVICES = (
    AGENTS,
    SESSIONS,
    HISTORIES,
    TASK_GRAPHS,
    CHECKPOINTS,
    INPUTS,
    TURNS,
    EVALUATIONS,
    *AGENT_SIDE,
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
        outlet = await stack.enter_async_context(open_outlet(settings))
        archive = Archive(objects(settings.archive, what="the archive of sessions")) if settings.archive else None
        key = settings.log_key.get_secret_value().encode()
        store = PostgresSessionStore(database, log_key=key, archive=archive)
        defaults = read_agents(settings.default_agents)
        agent_store = PostgresAgentStore(database)
        versions = Versions(agent_store, clock)
        await stack.enter_async_context(supervised("agents", lambda: agents_changed(dsn, versions)))
        agents = Agents(agent_store, defaults, clock=clock, ids=ids, versions=versions)
        watcher = Watcher(store, tail, poll=settings.poll)
        sessions = Sessions(store, agents, watcher, clock, ids, settings.heartbeat)
        checkpoints = Checkpoints(checkpoint_store(settings.checkpoints, database), clock, ids)
        delegations = PostgresDelegationStore(database)
        gate = DelegationGate(delegations, sessions, clock)
        tasks, tools, leave, memory = await _drive(
            settings, stack, store, tail, agents, checkpoints=checkpoints, gate=gate
        )
        graphs = TaskGraphs(store, tail, agents, tools, checkpoints, clock, ids)
        planner = Planner(tasks, tasks.inference, ids, settings.plan_max_output_tokens)
        agent_service_pb2_grpc.add_AgentServiceServicer_to_server(AgentService(agents, sessions), server)
        add_to_server(SessionService(sessions, clock), server)
        inputs = Inputs(sessions, store, ids, leave, clock)
        input_service_pb2_grpc.add_InputServiceServicer_to_server(InputService(inputs), server)
        turn_service_pb2_grpc.add_TurnServiceServicer_to_server(TurnService(sessions), server)
        histories = Histories(store, agents, clock, ids, settings.max_takeovers)
        history_service_pb2_grpc.add_HistoryServiceServicer_to_server(HistoryService(histories), server)
        task_graph_service_pb2_grpc.add_TaskGraphServiceServicer_to_server(TaskGraphService(graphs, planner), server)
        checkpoint_service_pb2_grpc.add_CheckpointServiceServicer_to_server(CheckpointService(graphs), server)
        evaluations = Evaluations(PostgresEvaluationStore(database), clock, ids)
        evaluation_service_pb2_grpc.add_EvaluationServiceServicer_to_server(EvaluationService(evaluations), server)
        follow_dsn = settings.driver_dsn.get_secret_value()
        following = await stack.enter_async_context(open_database(follow_dsn, pool=1))
        expiry = Expiry(store, PostgresLeaseStore(following), clock, settings.approval_every)
        await stack.enter_async_context(supervised("expiry", expiry.run))
        if archive is not None:
            archivist = Archivist(
                store, archive, PostgresLeaseStore(following), clock, settings.archive_after, settings.archive_every
            )
            await stack.enter_async_context(supervised("archive", archivist.run))
        side = AgentSide(
            sessions=sessions,
            graphs=graphs,
            history_store=PostgresHistoryStore(database),
            happenings=PostgresHappeningStore(following, database),
            herald=BusHerald(outlet),
            relationship_store=PostgresRelationshipStore(database),
            delegation_store=delegations,
            template_store=PostgresTemplateStore(database),
            keeps=memory.append,
        )
        side.add_to_server(server)
        await stack.enter_async_context(supervised("follow", side.follower(settings.poll).run))

    run("orchestrator", settings, register, service_names=SERVICES)


async def _drive(
    settings: OrchestratorSettings,
    stack: AsyncExitStack,
    store: PostgresSessionStore,
    tail: RedisTail,
    agents: Agents,
    *,
    checkpoints: Checkpoints,
    gate: DelegationGate,
) -> tuple[Tasks, GrpcTools, GrpcLeave, GrpcMemory]:
    """Starts the driver; everything it uses closes after it."""
    clock = SystemClock()
    if settings.identity_private_key is None:
        raise ValueError("orchestrator needs AGENTNET_IDENTITY_PRIVATE_KEY")
    signer = Signer.from_file("orchestrator", settings.identity_private_key, clock)
    channel = await stack.enter_async_context(
        mesh_channel(settings.mesh_address, services=(*PEERS, POLICY, OVERRIDES, RISKS), tls=settings.tls_folder)
    )
    risks = await stack.enter_async_context(reporting(channel, signer, "orchestrator", clock))
    driver_dsn = settings.driver_dsn.get_secret_value()
    leases: Database = await stack.enter_async_context(open_database(driver_dsn, pool=2))
    owner = f"orchestrator-{secrets.token_hex(6)}"
    memory = GrpcMemory(channel, signer)
    inference = Thinking(
        GrpcInference(channel, signer),
        memory,
        GrpcPolicy(channel, signer),
        clock,
        Skills(settings.skills),
        gate,
    )
    tools, leave = GrpcTools(channel, signer), GrpcLeave(channel, signer)
    holds = Holds(leave, settings.approval_wait)
    tasks = Tasks(agents, inference, leave, clock, settings.max_output_tokens)
    turns = Turns(
        agents=agents,
        inference=inference,
        memory=memory,
        tools=ToolWork(tools, Origins(store), clock, holds),
        clock=clock,
        ids=RandomIds(),
        limits=Limits(settings.max_output_tokens, settings.prompt_tokens, settings.memory_tokens),
    )
    graphs = GraphDriver(store, tail, tasks, ToolTasks(tools, holds, clock), checkpoints, clock, settings.max_takeovers)
    driver = SessionDriver(store, tail, turns, clock, settings.max_takeovers, tell=risks.tell)
    runs = Runs({"session": driver, "graph": graphs})
    await start_driver(settings, stack, runs, PostgresLeaseStore(leases), owner, accepting=store)
    return tasks, tools, leave, memory
