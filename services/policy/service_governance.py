"""OverrideService: convert in, one call of the domain, convert out."""

from __future__ import annotations

from typing import Any

from agentnet.policy.v1 import override_service_pb2 as pb
from agentnet.policy.v1 import override_service_pb2_grpc as rpc
from services.policy import convert_governance as convert
from services.policy.overrides import Overrides
from shared import fields
from shared.identity import current


class OverrideService(rpc.OverrideServiceServicer):
    """Who is excused?"""

    def __init__(self, overrides: Overrides) -> None:
        self._overrides = overrides

    async def CreateOverride(self, request: pb.CreateOverrideRequest, context: Any) -> pb.CreateOverrideResponse:
        caller = current()
        wanted = convert.new_override(request)
        made, token = await self._overrides.create(caller.tenant_id, caller.subject, **wanted)
        return pb.CreateOverrideResponse(override=convert.override(made), token=token)

    async def RevokeOverride(self, request: pb.RevokeOverrideRequest, context: Any) -> pb.RevokeOverrideResponse:
        caller = current()
        found = await self._overrides.revoke(caller.tenant_id, caller.subject, fields.identifier(request.id, "id"))
        return pb.RevokeOverrideResponse(override=convert.override(found))

    async def UseOverride(self, request: pb.UseOverrideRequest, context: Any) -> pb.UseOverrideResponse:
        caller, given = current(), convert.override_use(request)
        rules = await self._overrides.excused(caller.tenant_id, by=caller.subject, **given)
        return pb.UseOverrideResponse(rules=sorted(rules))

    async def DecideHold(self, request: pb.DecideHoldRequest, context: Any) -> pb.DecideHoldResponse:
        made = await self._overrides.decide(current(), convert.hold(request), **convert.word(request))
        return pb.DecideHoldResponse(override=convert.override(made) if made else None)

    async def SignOverride(self, request: pb.SignOverrideRequest, context: Any) -> pb.SignOverrideResponse:
        override_id = fields.identifier(request.id, "id")
        return pb.SignOverrideResponse(token=await self._overrides.signed(current().tenant_id, override_id))

    async def ListOverrides(self, request: pb.ListOverridesRequest, context: Any) -> pb.ListOverridesResponse:
        return convert.overrides_response(request, await self._overrides.every(current().tenant_id))
