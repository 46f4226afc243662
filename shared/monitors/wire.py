"""Bundles as enforcement points receive them: from the contract's messages into values the engine judges with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from google.protobuf import json_format

from agentnet.policy.v1 import bundle_pb2
from agentnet.policy.v1 import policy_service_pb2 as pb
from shared.monitors.rules import Action, Bundle, Mode, Profile, Rule, RuleType, Severity, Target

EVERYONE: Final = "*"
_SEVERITIES: Final = {
    bundle_pb2.SEVERITY_MINOR: Severity.MINOR,
    bundle_pb2.SEVERITY_MAJOR: Severity.MAJOR,
    bundle_pb2.SEVERITY_SEVERE: Severity.SEVERE,
}
SEVERITIES: Final = {severity: message for message, severity in _SEVERITIES.items()}
ACTIONS: Final = {
    bundle_pb2.RULE_ACTION_ALLOW: Action.ALLOW,
    bundle_pb2.RULE_ACTION_WARN: Action.WARN,
    bundle_pb2.RULE_ACTION_REDACT: Action.REDACT,
    bundle_pb2.RULE_ACTION_BLOCK: Action.BLOCK,
    bundle_pb2.RULE_ACTION_ESCALATE: Action.ESCALATE,
    bundle_pb2.RULE_ACTION_REQUIRE_APPROVAL: Action.REQUIRE_APPROVAL,
}
_TARGETS: Final = {
    bundle_pb2.RULE_TARGET_PROMPT: Target.PROMPT,
    bundle_pb2.RULE_TARGET_OUTPUT: Target.OUTPUT,
    bundle_pb2.RULE_TARGET_TOOL_ARGUMENTS: Target.TOOL_ARGUMENTS,
}
_MODES: Final = {
    bundle_pb2.ENFORCEMENT_MODE_STRICT: Mode.STRICT,
    bundle_pb2.ENFORCEMENT_MODE_PERMISSIVE: Mode.PERMISSIVE,
}


def bundle(message: bundle_pb2.Bundle) -> Bundle:
    """The bundle. Rules of a type this build does not know are left out: an older one enforces what it can."""
    known = set(RuleType)
    return Bundle(
        name=message.name,
        version=message.version,
        rules=tuple(_rule(rule) for rule in message.rules if rule.type in known),
        mode=_MODES.get(message.mode, Mode.STRICT),
        profiles=tuple(
            Profile(one.name, tuple(one.rules), tuple(one.extends), _MODES.get(one.mode)) for one in message.profiles
        ),
        agents=dict(message.agents),
    )


def in_force(tenants: Iterable[pb.TenantBundles], tenant: str, agent: str) -> list[Bundle]:
    """What holds for a tenant's agent in a snapshot: the tenant's bundles or everyone's, then what is attached."""
    by_name = {one.tenant_id: one for one in tenants}
    mine = by_name.get(tenant) or by_name.get(EVERYONE)
    if mine is None:
        return []
    every = {f"{one.name}@{one.version}": bundle(one) for one in (*mine.bundles, *mine.attached)}
    common = [every[f"{one.name}@{one.version}"].for_agent(agent) for one in mine.bundles]
    attached = [
        every[one.bundle].profiled(one.profile) if one.profile else every[one.bundle]
        for one in mine.attachments
        if one.agent in (agent, EVERYONE)
    ]
    return common + attached


def _rule(message: bundle_pb2.Rule) -> Rule:
    return Rule(
        name=message.name,
        type=RuleType(message.type),
        severity=_SEVERITIES.get(message.severity, Severity.SEVERE),
        action=ACTIONS.get(message.action),
        target=_TARGETS.get(message.target),
        pattern=message.pattern,
        keywords=tuple(message.keywords),
        replacement=message.replacement,
        case_insensitive=message.case_insensitive,
        params=json_format.MessageToDict(message.params),
    )
