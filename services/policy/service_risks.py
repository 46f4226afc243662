"""RiskService and AccessService: convert in, one call of the domain, convert out."""

from __future__ import annotations

from typing import Any

from agentnet.policy.v1 import access_service_pb2 as access_pb
from agentnet.policy.v1 import access_service_pb2_grpc as access_rpc
from agentnet.policy.v1 import risk_service_pb2 as pb
from agentnet.policy.v1 import risk_service_pb2_grpc as rpc
from services.policy import convert_risks as convert
from services.policy.access import Access
from services.policy.compliance import evidence
from services.policy.risks import Risks
from services.policy.store import PolicyStore
from shared import fields
from shared.clock import Clock
from shared.identity import current


class RiskService(rpc.RiskServiceServicer):
    """What could go wrong, and what is done about it?"""

    def __init__(self, risks: Risks) -> None:
        self._risks = risks

    async def ListRisks(self, request: pb.ListRisksRequest, context: Any) -> pb.ListRisksResponse:
        return convert.register(*await self._risks.register(current().tenant_id))

    async def RecordRiskEvent(self, request: pb.RecordRiskEventRequest, context: Any) -> pb.RecordRiskEventResponse:
        event, done = await self._risks.happened(current().tenant_id, **convert.happened(request))
        return pb.RecordRiskEventResponse(event_id=event.id, actions=[convert.action(one) for one in done])

    async def RecordMitigation(self, request: pb.RecordMitigationRequest, context: Any) -> pb.RecordMitigationResponse:
        caller, text = current(), fields.required(request.text, "text", limit=2000)
        made = await self._risks.mitigate(caller.tenant_id, caller.subject, request.risk, text)
        return pb.RecordMitigationResponse(mitigation=convert.mitigation(made))

    async def SetEnforcementRule(
        self, request: pb.SetEnforcementRuleRequest, context: Any
    ) -> pb.SetEnforcementRuleResponse:
        caller = current()
        rule = await self._risks.set_rule(caller.tenant_id, caller.subject, convert.rule(request))
        return pb.SetEnforcementRuleResponse(rule=convert.rule_message(rule))

    async def ListEnforcementRules(
        self, request: pb.ListEnforcementRulesRequest, context: Any
    ) -> pb.ListEnforcementRulesResponse:
        return convert.rules(request, await self._risks.rules(current().tenant_id))

    async def ListEnforcementActions(
        self, request: pb.ListEnforcementActionsRequest, context: Any
    ) -> pb.ListEnforcementActionsResponse:
        found = await self._risks.actions(current().tenant_id, active=request.active, target=request.target)
        return convert.actions(request, found)


class AccessService(access_rpc.AccessServiceServicer):
    """May this caller do this, and what has been done?"""

    def __init__(self, access: Access, store: PolicyStore, clock: Clock) -> None:
        self._access = access
        self._store = store
        self._clock = clock

    async def Authorize(self, request: access_pb.AuthorizeRequest, context: Any) -> access_pb.AuthorizeResponse:
        caller, wanted = current(), convert.asked(request)
        roles = list(wanted.roles) or sorted(caller.roles)
        if wanted.tool:
            decided = await self._access.tool(
                caller.tenant_id, caller.subject, roles, wanted.tool, agent=wanted.agent, idempotent=wanted.idempotent
            )
        else:
            decided = await self._access.action(caller.tenant_id, caller.subject, roles, wanted.action)
        return access_pb.AuthorizeResponse(allowed=decided.allowed, rationale=decided.rationale)

    async def SetToolPermission(
        self, request: access_pb.SetToolPermissionRequest, context: Any
    ) -> access_pb.SetToolPermissionResponse:
        caller = current()
        made = await self._access.permit(caller.tenant_id, caller.subject, convert.permission(request))
        return access_pb.SetToolPermissionResponse(permission=convert.permission_message(made))

    async def ListToolPermissions(
        self, request: access_pb.ListToolPermissionsRequest, context: Any
    ) -> access_pb.ListToolPermissionsResponse:
        return convert.permissions(request, await self._access.store.permissions(current().tenant_id))

    async def ListAuditEntries(
        self, request: access_pb.ListAuditEntriesRequest, context: Any
    ) -> access_pb.ListAuditEntriesResponse:
        chosen, asked, scope = convert.trail(request)
        found = await self._access.audit.entries(current().tenant_id, chosen, after=asked.skip, limit=asked.size + 1)
        return convert.trail_response(found, asked, scope)

    async def VerifyAudit(self, request: access_pb.VerifyAuditRequest, context: Any) -> access_pb.VerifyAuditResponse:
        return convert.integrity(await self._access.audit.verify(current().tenant_id))

    async def ExportCompliance(
        self, request: access_pb.ExportComplianceRequest, context: Any
    ) -> access_pb.ExportComplianceResponse:
        caller = current()
        start, end = convert.export_span(request, self._clock.now())
        found = await evidence(
            caller.tenant_id, caller.subject, audit=self._access.audit, store=self._store, start=start, end=end
        )
        return convert.evidence(found)
