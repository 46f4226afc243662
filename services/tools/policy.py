"""What policy says of a tool's name and arguments: the last snapshot received, enforced in this process."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Protocol

import grpc

from agentnet.policy.v1 import bundle_pb2
from agentnet.policy.v1 import policy_service_pb2 as pb
from agentnet.policy.v1 import policy_service_pb2_grpc as rpc
from services.tools.errors import PolicyBlocked, PolicyUnavailable
from shared import identity
from shared.identity import CredentialKind, Principal, Signer
from shared.log import log
from shared.monitors.rules import Action, Bundle, Rule, RuleType, Severity, Target
from shared.monitors.stream import CompiledRule, compile_rules, judge
from shared.rpc.status import from_rpc

NAME: Final = "agentnet.policy.v1.PolicyService"
_EVERYONE: Final = "*"
_TTL: Final = timedelta(minutes=5)
_MESH: Final = Principal("mesh", "tools", frozenset({"operator"}), CredentialKind.SERVICE)
_SEVERITIES: Final = {
    bundle_pb2.SEVERITY_MINOR: Severity.MINOR,
    bundle_pb2.SEVERITY_MAJOR: Severity.MAJOR,
    bundle_pb2.SEVERITY_SEVERE: Severity.SEVERE,
}
_ACTIONS: Final = {
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


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is enforced: bundles by tenant, "*" for all others."""

    revision: int
    tenants: Mapping[str, Sequence[Bundle]]


class PolicyPeer(Protocol):
    """policy."""

    def watch(self, after: int) -> AsyncIterator[Snapshot]:
        """What is enforced, now and after every change. Ends with a MeshError when the stream breaks."""


class ArgumentPolicy:
    """Judges calls by the last snapshot, which stays in force when policy is away."""

    def __init__(self, peer: PolicyPeer, *, strict: bool) -> None:
        self._peer = peer
        self._strict = strict
        self._snapshot: Snapshot | None = None
        self._compiled: dict[str, tuple[CompiledRule, ...]] = {}

    async def follow(self) -> None:
        """Takes every snapshot policy publishes, for as long as the stream holds."""
        async for snapshot in self._peer.watch(self._snapshot.revision if self._snapshot else 0):
            self._snapshot, self._compiled = snapshot, {}
            log.info("policy.snapshot", revision=snapshot.revision, tenants=len(snapshot.tenants))

    def check(self, tenant: str, tool: str, arguments: Mapping[str, Any]) -> None:
        """Raises PolicyBlocked, and PolicyUnavailable when a strict mesh has no policy yet."""
        text = f"{tool} {json.dumps(dict(arguments), ensure_ascii=False, sort_keys=True)}"
        ruling = judge(self._rules(tenant), Target.TOOL_ARGUMENTS, text)
        if ruling.blocked:
            verdict = ruling.verdicts[-1]
            raise PolicyBlocked(
                f"rule {verdict.rule.name} blocks calling {tool} with these arguments",
                rule=verdict.rule.name, bundle=verdict.bundle, tool=tool,
            )  # fmt: skip

    def _rules(self, tenant: str) -> tuple[CompiledRule, ...]:
        if self._snapshot is None:
            if self._strict:
                raise PolicyUnavailable("no policy has been received yet and this mesh is strict", dependency="policy")
            return ()
        whose = tenant if self._snapshot.tenants.get(tenant) else _EVERYONE
        if whose not in self._compiled:
            self._compiled[whose] = compile_rules(self._snapshot.tenants.get(whose, ()), Target.TOOL_ARGUMENTS)
        return self._compiled[whose]


class GrpcPolicy:
    """agentnet.policy.v1."""

    def __init__(self, channel: grpc.aio.Channel, signer: Signer) -> None:
        self._stub = rpc.PolicyServiceStub(channel)
        self._signer = signer

    async def watch(self, after: int) -> AsyncIterator[Snapshot]:
        metadata = ((identity.HEADER, self._signer.sign(_MESH, _TTL)),)
        try:
            async for answer in self._stub.WatchBundles(
                pb.WatchBundlesRequest(after_revision=after), metadata=metadata
            ):
                if not answer.heartbeat:
                    yield snapshot(answer)
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error) from None


def snapshot(answer: pb.WatchBundlesResponse) -> Snapshot:
    tenants = {
        tenant.tenant_id: [
            Bundle(bundle.name, bundle.version, tuple(_rule(rule) for rule in bundle.rules))
            for bundle in tenant.bundles
        ]
        for tenant in answer.tenants
    }
    return Snapshot(answer.revision, tenants)


def _rule(rule: bundle_pb2.Rule) -> Rule:
    return Rule(
        name=rule.name,
        type=RuleType(rule.type),
        severity=_SEVERITIES[rule.severity],
        action=_ACTIONS.get(rule.action),
        target=_TARGETS.get(rule.target),
        pattern=rule.pattern,
        keywords=tuple(rule.keywords),
        replacement=rule.replacement,
        case_insensitive=rule.case_insensitive,
    )
