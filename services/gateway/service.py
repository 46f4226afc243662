"""Gateway's services: admission for Envoy, identity, keys and health."""

from __future__ import annotations

from datetime import timedelta
from importlib.metadata import version
from typing import Any

from envoy.service.auth.v3 import external_auth_pb2_grpc

from agentnet.gateway.v1 import (
    health_service_pb2,
    health_service_pb2_grpc,
    identity_service_pb2,
    identity_service_pb2_grpc,
    key_service_pb2_grpc,
)
from agentnet.gateway.v1 import key_service_pb2 as pb
from services.gateway import convert
from services.gateway.admission import Admission
from services.gateway.health import MeshHealth
from services.gateway.keys import Keys
from shared import fields
from shared.clock import Clock
from shared.errors import MeshError
from shared.identity import Signer, current
from shared.log import log


class Authorization(external_auth_pb2_grpc.AuthorizationServicer):  # type: ignore[misc] # untyped stubs
    """envoy.service.auth.v3: who enters. A fault of ours is an error to Envoy, which then keeps everyone out."""

    def __init__(self, admission: Admission, signer: Signer, *, ttl: timedelta) -> None:
        self._admission = admission
        self._signer = signer
        self._ttl = ttl

    async def Check(self, request: Any, context: Any) -> Any:
        asked = convert.check_request(request)
        try:
            principal = await self._admission.admit(asked)
        except MeshError as error:
            log.info("admission.denied", path=asked.path, reason=error.reason_name)
            return convert.denied(error, rest=asked.rest)
        return convert.admitted(self._signer.sign(principal, self._ttl))


class IdentityService(identity_service_pb2_grpc.IdentityServiceServicer):
    """Who am I?"""

    async def GetCaller(self, request: Any, context: Any) -> identity_service_pb2.GetCallerResponse:
        return identity_service_pb2.GetCallerResponse(principal=convert.principal(current()))


class KeyService(key_service_pb2_grpc.KeyServiceServicer):
    """API keys."""

    def __init__(self, keys: Keys, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock

    async def CreateKey(self, request: pb.CreateKeyRequest, context: Any) -> pb.CreateKeyResponse:
        key, secret = await self._keys.make(current(), **convert.new_key(request, self._clock.now()))
        return pb.CreateKeyResponse(key=convert.key(key), secret=secret)

    async def ListKeys(self, request: pb.ListKeysRequest, context: Any) -> pb.ListKeysResponse:
        page, scope = convert.key_page(request)
        found = await self._keys.every(current().tenant_id, active_only=request.active_only, page=page)
        return convert.keys_response(found, page, scope)

    async def RevokeKey(self, request: pb.RevokeKeyRequest, context: Any) -> pb.RevokeKeyResponse:
        key_id = fields.identifier(request.key_id, "key_id")
        return pb.RevokeKeyResponse(key=convert.key(await self._keys.revoke(current().tenant_id, key_id)))


class HealthService(health_service_pb2_grpc.HealthServiceServicer):
    """Is the mesh well?"""

    def __init__(self, health: MeshHealth) -> None:
        self._health = health
        self._version = version("agentnet")

    async def GetHealth(self, request: Any, context: Any) -> health_service_pb2.GetHealthResponse:
        return convert.health_response(await self._health.require(), self._version)

    async def GetLiveness(self, request: Any, context: Any) -> health_service_pb2.GetLivenessResponse:
        return health_service_pb2.GetLivenessResponse(state=health_service_pb2.HEALTH_STATE_SERVING)
