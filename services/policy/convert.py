"""Between the contract and the library."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from agentnet.policy.v1 import access_service_pb2, attachment_pb2, bundle_pb2, monitor_pb2, violation_pb2
from agentnet.policy.v1 import policy_service_pb2 as pb
from services.policy.judging import Question
from services.policy.library import EVERYONE
from services.policy.store import Attachment, Enforced, StoredBundle, Violation, ViolationFilter
from shared import fields
from shared.errors import InvalidArgument
from shared.monitors.arguments import Call
from shared.monitors.pipeline import Finding, Outcome
from shared.monitors.rules import Action, Mode, Profile, Rule, Severity, Target
from shared.paging import Page, next_page_token, page

_NAME: Final = r"letters, digits, _, . and -, at most 64 characters"
_BUNDLE_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_AGENT: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}|\*")
_LABEL: Final = re.compile(r"[a-z0-9-]{1,32}")
_MAX_DOCUMENT: Final = 1024 * 1024
_MAX_TEXT: Final = 1_048_576
_MAX_SNAPSHOT: Final = 4 * 1024 * 1024
_MAX_SOURCES: Final = 64
_MAX_VIOLATIONS: Final = 100
_SEVERITIES: Final = {
    Severity.MINOR: bundle_pb2.SEVERITY_MINOR,
    Severity.MAJOR: bundle_pb2.SEVERITY_MAJOR,
    Severity.SEVERE: bundle_pb2.SEVERITY_SEVERE,
}
_FROM_SEVERITY: Final = {value: key for key, value in _SEVERITIES.items()}
_ACTIONS: Final = {
    Action.ALLOW: bundle_pb2.RULE_ACTION_ALLOW,
    Action.WARN: bundle_pb2.RULE_ACTION_WARN,
    Action.REDACT: bundle_pb2.RULE_ACTION_REDACT,
    Action.BLOCK: bundle_pb2.RULE_ACTION_BLOCK,
    Action.ESCALATE: bundle_pb2.RULE_ACTION_ESCALATE,
    Action.REQUIRE_APPROVAL: bundle_pb2.RULE_ACTION_REQUIRE_APPROVAL,
}
_TARGETS: Final = {
    Target.PROMPT: bundle_pb2.RULE_TARGET_PROMPT,
    Target.OUTPUT: bundle_pb2.RULE_TARGET_OUTPUT,
    Target.TOOL_ARGUMENTS: bundle_pb2.RULE_TARGET_TOOL_ARGUMENTS,
}
_MODES: Final = {
    Mode.STRICT: bundle_pb2.ENFORCEMENT_MODE_STRICT,
    Mode.PERMISSIVE: bundle_pb2.ENFORCEMENT_MODE_PERMISSIVE,
}
_FROM_TARGET: Final = {value: key for key, value in _TARGETS.items()}
_ORDERS: Final = {"": True, "create_time desc": True, "create_time": False}


@dataclass(frozen=True, slots=True)
class Listing:
    """A parsed list of violations."""

    chosen: ViolationFilter
    page: Page
    scope: str
    newest_first: bool


def new_bundle(request: pb.CreateBundleRequest) -> dict[str, Any]:
    if request.version:
        fields.matching(request.version, "version", fields.VERSION, form="a semantic version such as 1.0.0")
    fields.at_most(len(request.labels), "labels", limit=8)
    return {
        "name": fields.matching(request.name, "name", _BUNDLE_NAME, form=_NAME),
        "version": request.version,
        "document": fields.required(request.document, "document", limit=_MAX_DOCUMENT),
        "labels": tuple(label(entry, "labels") for entry in request.labels),
    }


def from_target(value: bundle_pb2.RuleTarget.ValueType) -> Target | None:
    return _FROM_TARGET.get(value)


def to_target(value: Target) -> bundle_pb2.RuleTarget.ValueType:
    return _TARGETS[value]


def label(value: str, field: str) -> str:
    return fields.matching(value, field, _LABEL, form="lower-case letters, digits and -, at most 32 characters")


def reference(value: str, field: str = "name") -> tuple[str, str]:
    """`default@1.0.0` into name and version; the version may be absent."""
    name, _, version = value.partition("@")
    fields.matching(name, field, _BUNDLE_NAME, form=f"{_NAME}, and perhaps @ and a version")
    if version:
        fields.matching(version, field, fields.VERSION, form="a name, @ and a semantic version")
    return name, version


def listed(request: pb.ListBundlesRequest, found: Sequence[StoredBundle]) -> pb.ListBundlesResponse:
    if request.order_by not in ("", "name", "create_time desc"):
        raise InvalidArgument("order_by is name or create_time desc", field="order_by")
    scope = f"bundles|{request.name}|{request.order_by}"
    asked = page(request.page_size, request.page_token, scope=scope)
    ordered = list(found) if request.order_by == "create_time desc" else sorted(found, key=lambda one: one.name)
    shown = ordered[asked.skip : asked.skip + asked.size]
    end = asked.skip + len(shown)
    more = (str(end),) if end < len(ordered) else None
    token = next_page_token(more, scope=scope)
    return pb.ListBundlesResponse(bundles=[bundle(one) for one in shown], next_page_token=token)


def question(request: pb.CheckRequest, roles: frozenset[str]) -> Question:
    fields.at_most(len(request.sources), "sources", limit=_MAX_SOURCES)
    call = None
    if request.tool:
        arguments = fields.mapping(request.arguments, "arguments", limit=_MAX_TEXT)
        tool = fields.text(request.tool, "tool", limit=128)
        call = Call(tool, arguments, agent=request.agent, roles=tuple(sorted(roles)), session_id=request.session_id)
    limited = fields.text if request.facts or call else fields.required
    return Question(
        text=limited(request.text, "text", limit=_MAX_TEXT),
        target=_FROM_TARGET.get(request.target, Target.TOOL_ARGUMENTS if call else Target.OUTPUT),
        names=[reference(name, "bundles") for name in request.bundles],
        agent=fields.text(request.agent, "agent", limit=64),
        session_id=fields.text(request.session_id, "session_id", limit=64),
        facts=dict(request.facts),
        sources=list(request.sources),
        call=call,
        override_token=fields.text(request.override_token, "override_token", limit=4096),
        sentence=request.sentence,
    )


def check_response(outcome: Outcome) -> pb.CheckResponse:
    return pb.CheckResponse(
        allowed=not outcome.blocked,
        text="" if outcome.blocked else outcome.text,
        findings=[_finding(found) for found in outcome.findings],
        monitors=[
            monitor_pb2.MonitorReport(
                name=report.name,
                status=report.status,
                elapsed_ms=report.elapsed / timedelta(milliseconds=1),
                problem=report.problem,
            )
            for report in outcome.reports
        ],
    )


def _finding(found: Finding) -> pb.Finding:
    verdict = found.verdict
    return pb.Finding(
        rule=verdict.rule.name,
        bundle=verdict.bundle,
        severity=_SEVERITIES[verdict.rule.severity],
        action=_ACTIONS[verdict.action],
        span_start=verdict.start,
        span_end=verdict.end,
        kind=verdict.kind,
        rationale=found.rationale,
    )


def violations(request: pb.RecordViolationsRequest) -> list[Violation]:
    fields.at_most(len(request.violations), "violations", limit=_MAX_VIOLATIONS)
    return [_read(message) for message in request.violations]


def list_violations(request: pb.ListViolationsRequest) -> Listing:
    if request.order_by not in _ORDERS:
        raise InvalidArgument("order_by is create_time or create_time desc", field="order_by")
    chosen = ViolationFilter(
        session_id=request.session_id,
        severity=_FROM_SEVERITY.get(request.severity),
        monitor_name=request.monitor_name,
        start=fields.instant(request.start_time, "start_time") if request.HasField("start_time") else None,
        end=fields.instant(request.end_time, "end_time") if request.HasField("end_time") else None,
        shadow=request.shadow,
    )
    scope = f"violations|{chosen}|{request.order_by}"
    paging = page(request.page_size, request.page_token, scope=scope)
    return Listing(chosen, paging, scope, newest_first=_ORDERS[request.order_by])


def violations_response(found: Sequence[Violation], asked: Listing) -> pb.ListViolationsResponse:
    shown = found[: asked.page.size]
    more = (shown[-1].created_at.isoformat(), shown[-1].id) if len(found) > len(shown) else None
    token = next_page_token(more, scope=asked.scope)
    return pb.ListViolationsResponse(violations=[_violation(one) for one in shown], next_page_token=token)


def snapshot(
    enforced: Enforced | None, *, seen_by: str | None, reported: float, now: datetime
) -> Iterator[pb.WatchBundlesResponse]:
    """What one watcher may see: everything for a service of the mesh, a tenant's own and the default for others; in as
    many messages as keep each small enough to be sent.
    """
    if enforced is None:
        yield pb.WatchBundlesResponse(heartbeat=True, time=_time(now))
        return
    sent = pb.WatchBundlesResponse(revision=enforced.revision, time=_time(now))
    for name in enforced.tenants:
        if seen_by not in (None, name) and name != EVERYONE:
            continue
        told = _tenant(name, enforced, reported)
        if sent.tenants and sent.ByteSize() + told.ByteSize() > _MAX_SNAPSHOT:
            sent.continued = True
            yield sent
            sent = pb.WatchBundlesResponse(revision=enforced.revision, time=_time(now))
        sent.tenants.append(told)
    yield sent


def _tenant(name: str, enforced: Enforced, reported: float) -> pb.TenantBundles:
    own, attached = enforced.tenants[name], enforced.attached.get(name, ())
    known = {one.label for one in own}
    more = {stored.label: stored for _, stored in attached if stored.label not in known}
    return pb.TenantBundles(
        tenant_id=name,
        bundles=[bundle(one) for one in own],
        attachments=[_attachment(one) for one, _ in attached],
        attached=[bundle(one) for one in more.values()],
        reported=1.0 if name in enforced.trying else reported,
        tool_permissions=[
            access_service_pb2.ToolPermission(tool=one.tool, roles=one.roles, agents=one.agents)
            for one in enforced.permissions.get(name, ())
        ],
    )


def attachment(request: attachment_pb2.AttachBundleRequest) -> Attachment:
    name, version = reference(request.name)
    agent = fields.matching(request.agent, "agent", _AGENT, form="an agent's name or *")
    return Attachment(agent, name, version, fields.text(request.profile, "profile", limit=64))


def attachments_response(found: Sequence[Attachment]) -> attachment_pb2.AttachBundleResponse:
    return attachment_pb2.AttachBundleResponse(attachments=[_attachment(one) for one in found])


def _attachment(one: Attachment) -> attachment_pb2.Attachment:
    return attachment_pb2.Attachment(agent=one.agent, bundle=f"{one.name}@{one.version}", profile=one.profile)


def bundle(stored: StoredBundle) -> bundle_pb2.Bundle:
    return bundle_pb2.Bundle(
        name=stored.name,
        version=stored.version,
        digest=stored.digest,
        rules=[_rule(rule) for rule in stored.rules],
        labels=stored.labels,
        create_time=_time(stored.created_at),
        built_in=stored.built_in,
        signature=stored.signature,
        signing_key=stored.signing_key,
        mode=_MODES[stored.content.mode],
        profiles=[_profile(profile) for profile in stored.content.profiles],
        agents=dict(stored.content.agents),
    )


def _profile(profile: Profile) -> bundle_pb2.Profile:
    mode = _MODES[profile.mode] if profile.mode else bundle_pb2.ENFORCEMENT_MODE_UNSPECIFIED
    return bundle_pb2.Profile(name=profile.name, rules=profile.rules, extends=profile.extends, mode=mode)


def _rule(rule: Rule) -> bundle_pb2.Rule:
    return bundle_pb2.Rule(
        name=rule.name,
        type=rule.type.value,
        severity=_SEVERITIES[rule.severity],
        action=_ACTIONS[rule.action] if rule.action else bundle_pb2.RULE_ACTION_UNSPECIFIED,
        pattern=rule.pattern,
        keywords=rule.keywords,
        target=_TARGETS[rule.target] if rule.target else bundle_pb2.RULE_TARGET_UNSPECIFIED,
        replacement=rule.replacement,
        enforced=rule.enforced,
        case_insensitive=rule.case_insensitive,
        params=fields.struct(dict(rule.params)),
    )


def _read(message: violation_pb2.Violation) -> Violation:
    severity = _FROM_SEVERITY.get(message.severity)
    if severity is None:
        raise InvalidArgument("severity is required", field="violations.severity")
    return Violation(
        id=fields.required(message.id, "violations.id", limit=100),
        session_id=message.session_id,
        turn_id=message.turn_id,
        agent=message.agent,
        monitor_name=fields.required(message.monitor_name, "violations.monitor_name", limit=64),
        severity=severity,
        violation_type=message.violation_type,
        rationale=fields.text(message.rationale, "violations.rationale", limit=1000),
        meta=fields.mapping(message.meta, "violations.meta"),
        created_at=fields.instant(message.create_time, "violations.create_time"),
    )


def _violation(one: Violation) -> violation_pb2.Violation:
    return violation_pb2.Violation(
        id=one.id,
        session_id=one.session_id,
        turn_id=one.turn_id,
        agent=one.agent,
        monitor_name=one.monitor_name,
        severity=_SEVERITIES[one.severity],
        violation_type=one.violation_type,
        rationale=one.rationale,
        meta=fields.struct(dict(one.meta)),
        create_time=_time(one.created_at),
    )


def _time(value: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(value)
    return stamp
