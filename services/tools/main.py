"""The composition root of the tools service."""

from __future__ import annotations

import gc
import sys
from contextlib import AsyncExitStack

import grpc

from agentnet.tools.v1 import tool_service_pb2_grpc as rpc
from services.tools.artefacts import Artefacts
from services.tools.cgroups import Groups
from services.tools.egress import Egress
from services.tools.executor import Executor
from services.tools.fetching import Fetching
from services.tools.flow import Flow
from services.tools.functions import FunctionExecutor
from services.tools.grpc_methods import GrpcExecutor
from services.tools.gvisor import GvisorSandbox
from services.tools.http_api import HttpExecutor
from services.tools.isolation import FUNCTIONS, MODULES, PROGRAMS
from services.tools.mcp_servers import McpExecutor
from services.tools.modules import ModuleExecutor
from services.tools.overrides import NAME as OVERRIDES
from services.tools.overrides import GrpcOverrides
from services.tools.permissions import ToolAuthorizer
from services.tools.policy import ArgumentPolicy, Held
from services.tools.programs import ProgramExecutor
from services.tools.rates import RedisRates
from services.tools.registry import Registry
from services.tools.retrieval import NAME as MEMORY
from services.tools.retrieval import RetrievalExecutor
from services.tools.runtime import runtime_isolation
from services.tools.sandbox import Backend, Sandbox
from services.tools.secrets import Secrets
from services.tools.service import ToolService
from services.tools.settings import ToolsSettings
from services.tools.sql_query import SqlExecutor
from services.tools.store_postgres import PostgresToolStore
from shared.bus import Emitter, open_outlet
from shared.clock import SystemClock
from shared.identity import Signer
from shared.ids import RandomIds
from shared.monitors.decisions import NAME as DECISIONS
from shared.monitors.decisions import Decided, reporting
from shared.monitors.enforced import NAME as POLICY
from shared.monitors.enforced import Enforced, published
from shared.monitors.violations import recording
from shared.objects import objects
from shared.postgres import open_database
from shared.redis import open_redis
from shared.risks import NAME as RISKS
from shared.risks import reporting as reporting_risks
from shared.rpc.channel import mesh_channel
from shared.rpc.server import run
from shared.tasks import supervised

SERVICES = ("agentnet.tools.v1.ToolService",)
# How long a thread that reads a large answer keeps the interpreter from everybody else; Python's own is ten times that.
SWITCH_SECONDS = 0.0005


def main() -> None:
    settings = ToolsSettings.load()
    sys.setswitchinterval(SWITCH_SECONDS)

    async def register(server: grpc.aio.Server, stack: AsyncExitStack) -> None:
        clock, ids = SystemClock(), RandomIds()
        dsn = settings.postgres_dsn.get_secret_value()
        database = await stack.enter_async_context(open_database(dsn, pool=settings.postgres_pool))
        redis = await stack.enter_async_context(open_redis(settings.redis_url.get_secret_value()))
        channel = await stack.enter_async_context(
            mesh_channel(
                settings.mesh_address, services=(POLICY, OVERRIDES, DECISIONS, MEMORY, RISKS), tls=settings.tls_folder
            )
        )
        if settings.identity_private_key is None:
            raise ValueError("tools needs AGENTNET_IDENTITY_PRIVATE_KEY")
        signer = Signer.from_file("tools", settings.identity_private_key, clock)
        enforced = Enforced(published(channel, signer, "tools"), Held.of)
        await stack.enter_async_context(supervised("policy", enforced.follow))
        decisions = await stack.enter_async_context(
            reporting(enforced.reported, channel, signer, "tools", clock=clock, ids=ids)
        )
        violations = await stack.enter_async_context(recording(channel, signer, "tools", clock=clock, ids=ids))
        risks = await stack.enter_async_context(reporting_risks(channel, signer, "tools", clock))

        def note(tenant: str, decided: Decided) -> None:
            decisions.note(tenant, decided)
            if decided.verdicts:
                violations.note(tenant, decided)

        policy = ArgumentPolicy(enforced, strict=settings.strict, overrides=GrpcOverrides(channel), note=note)
        inside, most = runtime_isolation(settings.runtime_class), settings.max_sandboxes
        groups = Groups.delegated(settings.cgroup) if settings.cgroup != "none" else None
        sandbox, programs, modules = [
            await stack.enter_async_context(Sandbox(at_once=most, inside=inside, profile=profile, groups=groups))
            for profile in (FUNCTIONS, PROGRAMS, MODULES)
        ]
        functions: Backend = sandbox
        if settings.sandbox == "gvisor":
            functions = await stack.enter_async_context(GvisorSandbox(at_once=most))
        await functions.prepare()
        emitter = Emitter(await stack.enter_async_context(open_outlet(settings)), clock, source="tools")
        await stack.enter_async_context(emitter.running())
        store, authorizer = PostgresToolStore(database), ToolAuthorizer.from_file(settings.permissions)
        artefacts = Artefacts(objects(settings.artefacts)) if settings.artefacts else None
        registry = Registry(store, authorizer=authorizer, clock=clock, ids=ids)
        flow = Flow(
            store,
            _executors(settings, functions, (sandbox, programs, modules), channel, artefacts=artefacts),
            authorizer=authorizer,
            rates=RedisRates(redis, clock, ids),
            policy=policy,
            clock=clock,
            ids=ids,
            quarantine=registry.quarantine,
            bus=emitter,
            threat_limit=settings.threat_limit,
            artefacts=artefacts,
            risks=risks.tell,
        )
        rpc.add_ToolServiceServicer_to_server(ToolService(registry, flow, clock, artefacts), server)
        # What is here now stays: to look through it after every large answer would hold up everybody's calls.
        gc.collect()
        gc.freeze()

    run("tools", settings, register, service_names=SERVICES)


def _executors(
    settings: ToolsSettings,
    functions: Backend,
    sandboxes: tuple[Sandbox, Sandbox, Sandbox],
    channel: grpc.aio.Channel,
    *,
    artefacts: Artefacts | None,
) -> dict[str, Executor]:
    sandbox, programs, modules = sandboxes
    secrets = Secrets(settings.secrets)
    allowed = Egress([entry.strip() for entry in settings.egress_allow.split(",") if entry.strip()])
    return {
        "python": FunctionExecutor(functions, Fetching(allowed, secrets), artefacts),
        "external_api": HttpExecutor(allowed, secrets),
        "sql": SqlExecutor(secrets),
        "shell": ProgramExecutor(programs),
        "mcp": McpExecutor(sandbox, allowed, secrets),
        "grpc": GrpcExecutor(allowed, secrets),
        "wasm": ModuleExecutor(modules),
        "retrieval": RetrievalExecutor(channel),
    }
