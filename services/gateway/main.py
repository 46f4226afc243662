"""The composition root of the gateway service."""

from __future__ import annotations

from contextlib import AsyncExitStack

import grpc
from envoy.service.auth.v3 import external_auth_pb2_grpc

from agentnet.gateway.v1 import health_service_pb2_grpc, identity_service_pb2_grpc, key_service_pb2_grpc
from services.gateway import contract, probes
from services.gateway.admission import Admission
from services.gateway.health import MeshHealth, Probe
from services.gateway.keys import Keys
from services.gateway.permissions import permissions
from services.gateway.service import Authorization, HealthService, IdentityService, KeyService
from services.gateway.settings import GatewaySettings
from services.gateway.store_postgres import PostgresKeyStore
from shared.clock import SystemClock
from shared.identity import Signer
from shared.ids import RandomIds
from shared.postgres import open_database
from shared.redis import open_redis
from shared.rpc.server import run

SERVICES = (
    "agentnet.gateway.v1.IdentityService",
    "agentnet.gateway.v1.KeyService",
    "agentnet.gateway.v1.HealthService",
)
# Envoy asks before there is an identity; health is for those who have none.
OPEN = ("/envoy.service.auth.v3.Authorization/", "/agentnet.gateway.v1.HealthService/")


def main() -> None:
    settings = GatewaySettings.load()

    async def register(server: grpc.aio.Server, stack: AsyncExitStack) -> None:
        clock = SystemClock()
        dsn = settings.postgres_dsn.get_secret_value()
        database = await stack.enter_async_context(open_database(dsn, pool=settings.postgres_pool))
        redis = await stack.enter_async_context(open_redis(settings.redis_url.get_secret_value()))
        if settings.identity_private_key is None:
            raise ValueError("gateway needs AGENTNET_IDENTITY_PRIVATE_KEY")
        signer = Signer.from_file("gateway", settings.identity_private_key, clock)
        keys = Keys(
            PostgresKeyStore(database),
            pepper=settings.key_pepper.get_secret_value(),
            clock=clock,
            ids=RandomIds(),
            cache_ttl=settings.key_cache_ttl,
        )
        asked: dict[str, Probe] = {"postgres": probes.of_postgres(database), "redis": probes.of_redis(redis)}
        for part in filter(None, settings.parts.split(",")):
            name, _, address = part.partition("=")
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
            asked[name] = probes.of_service(channel)
        authorization = Authorization(
            Admission(keys, permissions(contract.services())), signer, ttl=settings.identity_ttl
        )
        external_auth_pb2_grpc.add_AuthorizationServicer_to_server(authorization, server)
        identity_service_pb2_grpc.add_IdentityServiceServicer_to_server(IdentityService(), server)
        key_service_pb2_grpc.add_KeyServiceServicer_to_server(KeyService(keys, clock), server)
        health_service_pb2_grpc.add_HealthServiceServicer_to_server(HealthService(MeshHealth(asked)), server)

    run("gateway", settings, register, service_names=SERVICES, open_to_all=OPEN)
