"""The composition root of the evaluation worker."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import grpc

from services.orchestrator.evaluation.evaluations import Evaluations
from services.orchestrator.evaluation.peers_grpc import SERVICES, GrpcMeaning, GrpcSessions
from services.orchestrator.evaluation.running import Cases
from services.orchestrator.evaluation.settings import EvaluationSettings
from services.orchestrator.evaluation.store_postgres import PostgresCaseQueue, PostgresEvaluationStore
from services.orchestrator.evaluation.worker import Worker
from shared.clock import SystemClock
from shared.identity import Signer
from shared.ids import RandomIds
from shared.postgres import open_database
from shared.rpc.channel import mesh_channel
from shared.rpc.server import run
from shared.tasks import supervised


def main() -> None:
    settings = EvaluationSettings.load()

    async def register(_server: grpc.aio.Server, stack: AsyncExitStack) -> None:
        """Nothing but health is served; the API is the orchestrator's."""
        worker = await _worker(settings, stack)
        await stack.enter_async_context(_draining(worker))
        await stack.enter_async_context(supervised("renew", worker.renew))
        await stack.enter_async_context(supervised("claim", worker.claim))

    run("evaluation", settings, register, service_names=())


async def _worker(settings: EvaluationSettings, stack: AsyncExitStack) -> Worker:
    if settings.identity_private_key is None:
        raise ValueError("the evaluation worker needs AGENTNET_IDENTITY_PRIVATE_KEY")
    clock = SystemClock()
    signer = Signer.from_file("orchestrator", settings.identity_private_key, clock)
    own = await stack.enter_async_context(open_database(settings.postgres_dsn.get_secret_value(), pool=4))
    leases = await stack.enter_async_context(open_database(settings.driver_dsn.get_secret_value(), pool=2))
    channel = await stack.enter_async_context(
        mesh_channel(settings.mesh_address, services=SERVICES, tls=settings.tls_folder)
    )
    evaluations = Evaluations(PostgresEvaluationStore(own), clock, RandomIds())
    sessions, meaning = GrpcSessions(channel, signer), GrpcMeaning(channel, signer)
    return Worker(
        queue=PostgresCaseQueue(leases),
        cases=Cases(evaluations, sessions, meaning, settings.evaluation_max_tries),
        owner=f"evaluation-{secrets.token_hex(6)}",
        ttl=settings.evaluation_lease_ttl,
        poll=settings.evaluation_poll,
        limit=settings.evaluation_cases,
    )


@asynccontextmanager
async def _draining(worker: Worker) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await worker.drain()
