"""Between the contract, risks and access."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration

from agentnet.policy.v1 import access_service_pb2 as access_pb
from agentnet.policy.v1 import risk_service_pb2 as pb
from services.policy.access import TOOL_ROLES
from services.policy.audit import HOT, AuditFilter, Integrity
from services.policy.audit_entry import AuditEntry
from services.policy.compliance import Evidence
from services.policy.convert_governance import instant
from services.policy.risks import ACTIONS, CALLBACK, DAY, REGISTER, Enforced, EnforcementRule, Mitigation, TargetKind
from shared import fields
from shared.errors import FieldRequired, InvalidArgument
from shared.paging import Page, next_page_token, page, paged
from shared.tool_permissions import ToolPermission


def happened(request: pb.RecordRiskEventRequest) -> dict[str, Any]:
    if not 0 <= request.value < math.inf:
        raise InvalidArgument("value must be a finite number, 0 or more", field="value")
    return {
        "risk": fields.required(request.risk, "risk", limit=64),
        "value": request.value or 1.0,
        "agent": fields.text(request.agent, "agent", limit=64),
        "session_id": fields.text(request.session_id, "session_id", limit=64),
        "detail": fields.mapping(request.detail, "detail"),
    }


def rule(request: pb.SetEnforcementRuleRequest) -> EnforcementRule:
    given = request.rule
    action = fields.required(given.action, "rule.action", limit=80)
    if action not in ACTIONS and not action.startswith(CALLBACK):
        raise InvalidArgument(f"rule.action is {', '.join(ACTIONS)} or callback:<name>", field="rule.action")
    if given.target not in set(TargetKind):
        raise InvalidArgument(f"rule.target is {', '.join(TargetKind)}", field="rule.target")
    if not 0 < given.threshold < math.inf:
        raise InvalidArgument("rule.threshold must be a finite number above 0", field="rule.threshold")
    window = _span(given.window, "rule.window")
    return EnforcementRule(
        name=fields.identifier(given.name, "rule.name"),
        risk=fields.required(given.risk, "rule.risk", limit=64),
        threshold=given.threshold,
        window=window,
        action=action,
        target=TargetKind(given.target),
        hold=_span(given.hold, "rule.hold") if given.HasField("hold") else window,
        enabled=given.enabled,
    )


def register(counts: Mapping[str, int], mitigations: Sequence[Mitigation]) -> pb.ListRisksResponse:
    return pb.ListRisksResponse(
        risks=[
            pb.Risk(
                name=risk.name,
                impact=risk.impact,
                mitigation=risk.mitigation,
                events=counts.get(risk.name, 0),
                mitigations=[mitigation(one) for one in mitigations if one.risk == risk.name],
            )
            for risk in REGISTER
        ]
    )


def mitigation(one: Mitigation) -> pb.Mitigation:
    return pb.Mitigation(id=one.id, text=one.text, owner=one.owner, create_time=instant(one.created_at))


def rules(request: pb.ListEnforcementRulesRequest, found: Sequence[EnforcementRule]) -> pb.ListEnforcementRulesResponse:
    shown, token = paged(found, request, scope="enforcement", name=lambda one: one.name)
    return pb.ListEnforcementRulesResponse(rules=[rule_message(one) for one in shown], next_page_token=token)


def rule_message(one: EnforcementRule) -> pb.EnforcementRule:
    return pb.EnforcementRule(
        name=one.name,
        risk=one.risk,
        threshold=one.threshold,
        window=_duration(one.window),
        action=one.action,
        target=one.target.value,
        hold=_duration(one.hold),
        enabled=one.enabled,
        built_in=one.built_in,
    )


def action(one: Enforced) -> pb.EnforcementAction:
    return pb.EnforcementAction(
        id=one.id,
        rule=one.rule,
        risk=one.risk,
        action=one.action,
        target_kind=one.target_kind.value,
        target=one.target,
        value=one.value,
        create_time=instant(one.created_at),
        expire_time=instant(one.expires_at),
    )


def actions(request: pb.ListEnforcementActionsRequest, found: Sequence[Enforced]) -> pb.ListEnforcementActionsResponse:
    scope = f"actions|{request.active}|{request.target}"
    shown, token = paged(found, request, scope=scope, name=lambda one: one.id)
    return pb.ListEnforcementActionsResponse(actions=[action(one) for one in shown], next_page_token=token)


def permission(request: access_pb.SetToolPermissionRequest) -> ToolPermission:
    given = request.permission
    unknown = sorted(set(given.roles) - TOOL_ROLES)
    if unknown:
        message = f"{unknown[0]} is not a role on tools; known: {', '.join(sorted(TOOL_ROLES))}"
        raise InvalidArgument(message, field="permission.roles")
    fields.at_most(len(given.agents), "permission.agents", limit=256)
    tool = fields.required(given.tool, "permission.tool", limit=128)
    return ToolPermission(tool, tuple(given.roles), tuple(given.agents))


def permissions(
    request: access_pb.ListToolPermissionsRequest, found: Sequence[ToolPermission]
) -> access_pb.ListToolPermissionsResponse:
    shown, token = paged(found, request, scope="permissions", name=lambda one: one.tool)
    made = [permission_message(one) for one in shown]
    return access_pb.ListToolPermissionsResponse(permissions=made, next_page_token=token)


def permission_message(one: ToolPermission) -> access_pb.ToolPermission:
    return access_pb.ToolPermission(tool=one.tool, roles=one.roles, agents=one.agents)


def asked(request: access_pb.AuthorizeRequest) -> access_pb.AuthorizeRequest:
    """Checked: an action or a tool is needed."""
    if not request.action and not request.tool:
        raise FieldRequired("action")
    return request


def trail(request: access_pb.ListAuditEntriesRequest) -> tuple[AuditFilter, Page, str]:
    chosen = AuditFilter(
        actor=request.actor,
        act=request.act,
        start=fields.instant(request.start_time, "start_time") if request.HasField("start_time") else None,
        end=fields.instant(request.end_time, "end_time") if request.HasField("end_time") else None,
        archived=request.archived,
    )
    scope = f"audit|{chosen}"
    return chosen, page(request.page_size, request.page_token, scope=scope), scope


def trail_response(found: Sequence[AuditEntry], asked_for: Page, scope: str) -> access_pb.ListAuditEntriesResponse:
    shown = found[: asked_for.size]
    more = (str(shown[-1].sequence),) if len(found) > len(shown) else None
    return access_pb.ListAuditEntriesResponse(
        entries=[_entry(one) for one in shown], next_page_token=next_page_token(more, scope=scope)
    )


def export_span(request: access_pb.ExportComplianceRequest, now: datetime) -> tuple[datetime, datetime]:
    start = fields.instant(request.start_time, "start_time") if request.HasField("start_time") else now - HOT
    end = fields.instant(request.end_time, "end_time") if request.HasField("end_time") else now
    if start >= end:
        raise InvalidArgument("start_time must be before end_time", field="start_time")
    return start, end


def evidence(found: Evidence) -> access_pb.ExportComplianceResponse:
    return access_pb.ExportComplianceResponse(
        controls=[
            access_pb.ControlEvidence(criterion=one.criterion, title=one.title, acts=one.acts, samples=one.samples)
            for one in found.controls
        ],
        trail_entries=found.trail_entries,
        trail_whole=found.trail_whole,
        violations=found.violations,
        digest=found.digest,
    )


def _entry(one: AuditEntry) -> access_pb.AuditEntry:
    return access_pb.AuditEntry(
        sequence=one.sequence,
        actor=one.actor,
        act=one.act,
        subject=one.subject,
        detail=fields.struct(dict(one.detail)),
        create_time=instant(one.created_at),
        seal=one.seal,
    )


_SHORTEST: Final = timedelta(seconds=1)


def _span(given: Duration, field: str) -> timedelta:
    span = fields.span(given, field)
    if not _SHORTEST <= span <= DAY:
        raise InvalidArgument(f"{field} must be from a second to 24 hours", field=field)
    return span


def _duration(span: timedelta) -> Duration:
    message = Duration()
    message.FromTimedelta(span)
    return message


def integrity(found: Integrity) -> access_pb.VerifyAuditResponse:
    return access_pb.VerifyAuditResponse(entries=found.entries, broken_at=found.broken_at)
