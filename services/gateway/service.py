"""Gateway's services: identity, keys and health."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from agentnet.gateway.v1 import (
    health_service_pb2,
    health_service_pb2_grpc,
    identity_service_pb2,
    identity_service_pb2_grpc,
    key_service_pb2_grpc,
)
from agentnet.gateway.v1 import key_service_pb2 as pb
from services.gateway import convert
from services.gateway.audit import Audit
from services.gateway.directory import Directory
from services.gateway.health import MeshHealth
from services.gateway.keys import Keys
from shared import fields
from shared.clock import Clock
from shared.identity import current


class IdentityService(identity_service_pb2_grpc.IdentityServiceServicer):
    """Who am I?"""

    async def GetCaller(
        self, request: identity_service_pb2.GetCallerRequest, context: Any
    ) -> identity_service_pb2.GetCallerResponse:
        return identity_service_pb2.GetCallerResponse(principal=convert.principal(current()))


class KeyService(key_service_pb2_grpc.KeyServiceServicer):
    """API keys."""

    def __init__(self, keys: Keys, directory: Directory, audit: Audit, clock: Clock) -> None:
        self._keys = keys
        self._directory = directory
        self._audit = audit
        self._clock = clock

    async def CreateKey(self, request: pb.CreateKeyRequest, context: Any) -> pb.CreateKeyResponse:
        wanted = convert.new_key(request, self._clock.now())
        await self._directory.require_roles(current().tenant_id, sorted(wanted["roles"]))
        if wanted["service_account"]:
            await self._directory.user(current().tenant_id, wanted["service_account"])
        key, secret = await self._keys.make(current(), **wanted)
        await self._audit.act(current(), "key.created", key.id)
        return pb.CreateKeyResponse(key=convert.key(key), secret=secret)

    async def ListKeys(self, request: pb.ListKeysRequest, context: Any) -> pb.ListKeysResponse:
        page, scope = convert.key_page(request)
        found = await self._keys.every(current().tenant_id, active_only=request.active_only, page=page)
        return convert.keys_response(found, page, scope)

    async def RevokeKey(self, request: pb.RevokeKeyRequest, context: Any) -> pb.RevokeKeyResponse:
        key_id = fields.identifier(request.key_id, "key_id")
        key = await self._keys.revoke(current().tenant_id, key_id)
        await self._audit.act(current(), "key.revoked", key_id)
        return pb.RevokeKeyResponse(key=convert.key(key))

    async def RotateKey(self, request: pb.RotateKeyRequest, context: Any) -> pb.RotateKeyResponse:
        key_id, grace = fields.identifier(request.key_id, "key_id"), convert.grace(request)
        new, secret, old = await self._keys.rotate(current(), key_id, grace=grace)
        await self._audit.act(current(), "key.rotated", key_id)
        return pb.RotateKeyResponse(key=convert.key(new), secret=secret, old_key=convert.key(old))


class HealthService(health_service_pb2_grpc.HealthServiceServicer):
    """Is the mesh well?"""

    def __init__(self, health: MeshHealth) -> None:
        self._health = health
        self._version = version("agentnet")

    async def GetHealth(
        self, request: health_service_pb2.GetHealthRequest, context: Any
    ) -> health_service_pb2.GetHealthResponse:
        return convert.health_response(await self._health.require(), self._version)

    async def GetLiveness(
        self, request: health_service_pb2.GetLivenessRequest, context: Any
    ) -> health_service_pb2.GetLivenessResponse:
        return health_service_pb2.GetLivenessResponse(state=health_service_pb2.HEALTH_STATE_SERVING)
