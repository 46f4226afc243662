"""The composition root of the policy service."""

from __future__ import annotations

from contextlib import AsyncExitStack

import grpc

from agentnet.policy.v1 import policy_service_pb2_grpc as rpc
from services.policy.library import Library
from services.policy.service import PolicyService
from services.policy.settings import PolicySettings
from services.policy.signing import BundleSigner
from services.policy.store_postgres import PostgresPolicyStore
from shared.clock import SystemClock
from shared.postgres import open_database
from shared.rpc.server import run
from shared.tasks import supervised

SERVICES = ("agentnet.policy.v1.PolicyService",)


def main() -> None:
    settings = PolicySettings.load()

    async def register(server: grpc.aio.Server, stack: AsyncExitStack) -> None:
        dsn = settings.postgres_dsn.get_secret_value()
        database = await stack.enter_async_context(open_database(dsn, pool=settings.postgres_pool))
        clock = SystemClock()
        document = settings.default_bundle.read_text()
        key = settings.identity_private_key
        signer = BundleSigner.from_file(key) if key else None
        store = PostgresPolicyStore(database, dsn)
        library = Library(store, document, clock=clock, poll=settings.poll, signer=signer)
        await stack.enter_async_context(supervised("publish", library.publish))
        service = PolicyService(library, clock=clock, heartbeat=settings.heartbeat)
        rpc.add_PolicyServiceServicer_to_server(service, server)

    run("policy", settings, register, service_names=SERVICES)
