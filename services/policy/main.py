"""The composition root of the policy service."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Final

import grpc

from agentnet.policy.v1 import override_service_pb2_grpc, policy_service_pb2_grpc, simulation_service_pb2_grpc
from services.policy.audit import AuditLog
from services.policy.governance_postgres import PostgresGovernance
from services.policy.judging import Judge
from services.policy.library import Library
from services.policy.overrides import Overrides
from services.policy.peers_grpc import SERVICES as PEERS
from services.policy.peers_grpc import GrpcModels
from services.policy.service import PolicyService
from services.policy.service_governance import OverrideService
from services.policy.service_simulation import SimulationService
from services.policy.settings import PolicySettings
from services.policy.signing import KEY_ID, BundleSigner
from services.policy.simulation import Simulator
from services.policy.store_postgres import PostgresPolicyStore
from services.policy.vault import Vault
from shared.clock import SystemClock
from shared.identity import Signer
from shared.ids import RandomIds
from shared.postgres import open_database
from shared.rpc.channel import mesh_channel
from shared.rpc.server import run
from shared.tasks import supervised

SERVICES: Final = (
    "agentnet.policy.v1.PolicyService",
    "agentnet.policy.v1.OverrideService",
    "agentnet.policy.v1.SimulationService",
)


def main() -> None:
    settings = PolicySettings.load()

    async def register(server: grpc.aio.Server, stack: AsyncExitStack) -> None:
        if settings.identity_private_key is None:
            raise ValueError("policy needs AGENTNET_IDENTITY_PRIVATE_KEY")
        dsn = settings.postgres_dsn.get_secret_value()
        database = await stack.enter_async_context(open_database(dsn, pool=settings.postgres_pool))
        channel = await stack.enter_async_context(mesh_channel(settings.mesh_address, services=PEERS))
        clock, ids = SystemClock(), RandomIds()
        signer = BundleSigner.from_file(settings.identity_private_key)
        models = GrpcModels(channel, Signer.from_file(KEY_ID, settings.identity_private_key, clock))
        document = settings.default_bundle.read_text()
        library = Library(PostgresPolicyStore(database, dsn), document, clock=clock, poll=settings.poll, signer=signer)
        governance = PostgresGovernance(database)
        audit = AuditLog(governance, clock)
        overrides = Overrides(governance, audit, signer.key, clock=clock, ids=ids)
        simulator = Simulator(governance, Vault(signer.key), clock=clock, keep_for=settings.keep_decisions)
        judge = Judge(library, models, overrides, simulator, clock=clock, ids=ids)
        await stack.enter_async_context(supervised("publish", library.publish))
        policy = PolicyService(library, judge, audit, clock=clock, heartbeat=settings.heartbeat)
        policy_service_pb2_grpc.add_PolicyServiceServicer_to_server(policy, server)
        override_service_pb2_grpc.add_OverrideServiceServicer_to_server(OverrideService(overrides), server)
        simulation = SimulationService(simulator, library, audit, clock)
        simulation_service_pb2_grpc.add_SimulationServiceServicer_to_server(simulation, server)

    run("policy", settings, register, service_names=SERVICES)
