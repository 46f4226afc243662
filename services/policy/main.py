"""The composition root of the policy service."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Final

import grpc

from agentnet.policy.v1 import (
    access_service_pb2_grpc,
    override_service_pb2_grpc,
    policy_service_pb2_grpc,
    privacy_service_pb2_grpc,
    risk_service_pb2_grpc,
    simulation_service_pb2_grpc,
)
from services.policy.access import Access
from services.policy.audit import AuditLog
from services.policy.audit_entry import seal_keys
from services.policy.callbacks import load_callbacks
from services.policy.classifiers import Classifiers
from services.policy.governance_postgres import PostgresGovernance
from services.policy.judging import Judge
from services.policy.library import Library
from services.policy.overrides import Overrides
from services.policy.peers_grpc import SERVICES as PEERS
from services.policy.peers_grpc import GrpcModels
from services.policy.privacy import Privacy
from services.policy.risk_archive import RiskArchivist
from services.policy.risks import Risks
from services.policy.risks_postgres import PostgresRisks
from services.policy.service import PolicyService
from services.policy.service_governance import OverrideService
from services.policy.service_privacy import PrivacyService
from services.policy.service_risks import AccessService, RiskService
from services.policy.service_simulation import SimulationService
from services.policy.settings import PolicySettings
from services.policy.signing import KEY_ID, BundleSigner
from services.policy.simulation import Simulator
from services.policy.store_postgres import PostgresPolicyStore
from services.policy.threats import Watchtower
from services.policy.vault import Vault
from shared.clock import SystemClock
from shared.identity import Signer
from shared.ids import RandomIds
from shared.objects import objects
from shared.postgres import open_database
from shared.rpc.channel import mesh_channel
from shared.rpc.server import run
from shared.tasks import supervised

SERVICES: Final = (
    "agentnet.policy.v1.PolicyService",
    "agentnet.policy.v1.OverrideService",
    "agentnet.policy.v1.SimulationService",
    "agentnet.policy.v1.RiskService",
    "agentnet.policy.v1.AccessService",
    "agentnet.policy.v1.PrivacyService",
)


def main() -> None:
    settings = PolicySettings.load()

    async def register(server: grpc.aio.Server, stack: AsyncExitStack) -> None:
        if settings.identity_private_key is None:
            raise ValueError("policy needs AGENTNET_IDENTITY_PRIVATE_KEY")
        dsn = settings.postgres_dsn.get_secret_value()
        database = await stack.enter_async_context(open_database(dsn, pool=settings.postgres_pool))
        channel = await stack.enter_async_context(
            mesh_channel(settings.mesh_address, services=PEERS, tls=settings.tls_folder)
        )
        clock, ids = SystemClock(), RandomIds()
        signer = BundleSigner.from_file(settings.identity_private_key)
        models = GrpcModels(channel, Signer.from_file(KEY_ID, settings.identity_private_key, clock))
        document = settings.default_bundle.read_text()
        store = PostgresPolicyStore(database, dsn)
        classifiers = Classifiers(settings.classifiers)
        library = Library(store, document, clock=clock, poll=settings.poll, signer=signer, has_model=classifiers.has)
        governance = PostgresGovernance(database)
        vault = Vault(signer.key)
        archive = (
            None if settings.audit_archive == "postgres" else objects(settings.audit_archive, what="the audit archive")
        )
        audit = AuditLog(
            governance, clock, seal_keys(vault, settings.audit_key_file), archive, hot=settings.audit_archive_after
        )  # fmt: skip
        overrides = Overrides(
            governance, audit, signer.key, rule_names=library.rule_names, clock=clock, ids=ids
        )  # fmt: skip
        simulator = Simulator(governance, vault, clock=clock, keep_for=settings.keep_decisions)
        judge = Judge(library, models, overrides, simulator, classifiers=classifiers, clock=clock, ids=ids)
        await stack.enter_async_context(supervised("publish", library.publish))
        await stack.enter_async_context(supervised("warm", judge.keep_warm))
        await stack.enter_async_context(supervised("archive", lambda: audit.keep_archiving(settings.archive_every)))
        tables = PostgresRisks(database)
        archivist = RiskArchivist(tables, clock, archive, settings.risks_hot)
        await stack.enter_async_context(supervised("archive risks", lambda: archivist.run(settings.archive_every)))
        risks = Risks(tables, audit, clock=clock, ids=ids, callbacks=load_callbacks())
        watchtower = Watchtower(risks)
        policy = PolicyService(
            library, judge, audit, watchtower,
            clock=clock, heartbeat=settings.heartbeat, reported=settings.reported_decisions,
        )  # fmt: skip
        risk_service_pb2_grpc.add_RiskServiceServicer_to_server(RiskService(risks), server)
        access = AccessService(Access(store, audit), store, clock)
        access_service_pb2_grpc.add_AccessServiceServicer_to_server(access, server)
        policy_service_pb2_grpc.add_PolicyServiceServicer_to_server(policy, server)
        override_service_pb2_grpc.add_OverrideServiceServicer_to_server(OverrideService(overrides), server)
        simulation = SimulationService(simulator, judge, library, audit, clock)
        simulation_service_pb2_grpc.add_SimulationServiceServicer_to_server(simulation, server)
        privacy = PrivacyService(Privacy(governance, vault, audit))
        privacy_service_pb2_grpc.add_PrivacyServiceServicer_to_server(privacy, server)

    run("policy", settings, register, service_names=SERVICES)
