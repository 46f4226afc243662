"""policy over the mesh, and how a peer is called on behalf of a payer."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import grpc
import jwt

from agentnet.policy.v1 import bundle_pb2, violation_pb2
from agentnet.policy.v1 import policy_service_pb2 as policy
from agentnet.policy.v1 import policy_service_pb2_grpc as policy_rpc
from agentnet.policy.v1 import privacy_service_pb2 as privacy
from agentnet.policy.v1 import privacy_service_pb2_grpc as privacy_rpc
from agentnet.policy.v1 import risk_service_pb2 as risks
from agentnet.policy.v1 import risk_service_pb2_grpc as risks_rpc
from services.inference.peers import Measure, Payer
from shared import fields, identity
from shared.identity import CredentialKind, Principal, Signer
from shared.monitors import wire
from shared.monitors.pipeline import Finding, Outcome, Report
from shared.monitors.rules import WINDOWED, Action, Bundle, Rule, RuleType, Severity, Target, Verdict
from shared.rpc.status import from_rpc

SERVICES: Final = (
    "agentnet.policy.v1.PolicyService",
    "agentnet.policy.v1.RiskService",
    "agentnet.policy.v1.PrivacyService",
)
_MEASURES: Final = 500
_TTL: Final = timedelta(minutes=5)
_REMEMBERED: Final = 1024
_SOON: Final = 5.0  # seconds; there are marks in the place of pseudonyms then
_SENTENCE_SECONDS: Final = 95.0  # a rule may ask a model that was never asked; what takes long is policy's to cut
MESH: Final = Principal("mesh", "inference", frozenset({"operator"}), CredentialKind.SERVICE)
_SEVERITIES: Final = {
    bundle_pb2.SEVERITY_MINOR: Severity.MINOR,
    bundle_pb2.SEVERITY_MAJOR: Severity.MAJOR,
    bundle_pb2.SEVERITY_SEVERE: Severity.SEVERE,
}
_TARGETS: Final = {
    Target.PROMPT: bundle_pb2.RULE_TARGET_PROMPT,
    Target.OUTPUT: bundle_pb2.RULE_TARGET_OUTPUT,
    Target.TOOL_ARGUMENTS: bundle_pb2.RULE_TARGET_TOOL_ARGUMENTS,
}
_TO_SEVERITY: Final = {value: key for key, value in _SEVERITIES.items()}


class OnBehalf:
    """Signs for the payer, whose own header may have ended by the time a generation does."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer
        self._signed: OrderedDict[Principal, tuple[float, str]] = OrderedDict()

    def metadata(self, principal: Principal) -> tuple[tuple[str, str], ...]:
        return ((identity.HEADER, self.header(principal)),)

    def header(self, principal: Principal) -> str:
        """One header serves a payer for half its life: those who read it need to verify it but once."""
        now, found = time.monotonic(), self._signed.get(principal)
        if found and found[0] > now:
            return found[1]
        # What was admitted is paid for and told, also when its caller's credential has ended meanwhile.
        header = self._signer.sign(replace(principal, expires_at=None), _TTL)
        self._signed[principal] = (now + _TTL.total_seconds() / 2, header)
        if len(self._signed) > _REMEMBERED:
            self._signed.popitem(last=False)
        return header


class GrpcPolicy(OnBehalf):
    """agentnet.policy.v1."""

    def __init__(self, channel: grpc.aio.Channel, signer: Signer) -> None:
        super().__init__(signer)
        self._stub = policy_rpc.PolicyServiceStub(channel)
        self._privacy = privacy_rpc.PrivacyServiceStub(channel)
        self._risks = risks_rpc.RiskServiceStub(channel)

    async def bundle(self, payer: Payer, name: str) -> Bundle:
        request = policy.GetBundleRequest(name=name)
        answer = await called(self._stub.GetBundle(request, metadata=self.metadata(payer.principal)))
        return wire.bundle(answer.bundle)

    async def excused(self, payer: Payer, text: str, token: str) -> frozenset[str]:
        request = policy.CheckRequest(
            text=text or " ",
            target=bundle_pb2.RULE_TARGET_PROMPT,
            agent=payer.agent,
            session_id=payer.session_id,
            override_token=token,
        )
        await called(self._stub.Check(request, metadata=self.metadata(payer.principal)))
        # Policy found the token good; what it excuses stands in it.
        return frozenset(jwt.decode(token, options={"verify_signature": False})["rules"])

    async def pseudonymized(self, payer: Payer, text: str, kinds: Sequence[str]) -> str:
        request = privacy.PseudonymizeRequest(text=text, kinds=kinds)
        answer = await called(
            self._privacy.Pseudonymize(request, metadata=self.metadata(payer.principal), timeout=_SOON)
        )
        return str(answer.text)

    async def check(
        self, payer: Payer, text: str, target: Target, bundles: Sequence[Bundle], *, override: str = ""
    ) -> Outcome:
        request = policy.CheckRequest(
            text=text,
            target=_TARGETS[target],
            bundles=[bundle.label for bundle in bundles],
            agent=payer.agent,
            session_id=payer.session_id,
            override_token=override,
            sentence=True,
        )
        metadata = self.metadata(payer.principal)
        answer = await called(self._stub.Check(request, metadata=metadata, timeout=_SENTENCE_SECONDS))
        rules = {(bundle.label, rule.name): rule for bundle in bundles for rule in bundle.rules}
        found = [_finding(one, rules.get((one.bundle, one.rule)), target) for one in answer.findings]
        # What rules say that read every character is known already.
        slow = tuple(one for one in found if one.verdict.rule.type in WINDOWED)
        reports = tuple(
            Report(one.name, one.status, timedelta(milliseconds=one.elapsed_ms), one.problem) for one in answer.monitors
        )
        return Outcome(answer.text, tuple(found) if not answer.allowed else slow, reports, blocked=not answer.allowed)

    async def measures(self, payer: Payer) -> Sequence[Measure]:
        request = risks.ListEnforcementActionsRequest(active=True, page_size=_MEASURES)
        answer = await called(self._risks.ListEnforcementActions(request, metadata=self.metadata(payer.principal)))
        return [
            Measure(one.rule, one.action, one.target_kind, one.target, one.expire_time.ToDatetime(UTC), one.risk)
            for one in answer.actions
        ]

    async def record(self, payer: Payer, verdicts: Sequence[tuple[str, Verdict]], *, at: datetime) -> None:
        request = policy.RecordViolationsRequest(
            violations=[_violation(name, verdict, payer, at) for name, verdict in verdicts]
        )
        await called(self._stub.RecordViolations(request, metadata=self.metadata(payer.principal)))


async def called(call: Any) -> Any:
    """The answer. Raises the service's MeshError."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise from_rpc(error) from None


def _finding(found: policy.Finding, rule: Rule | None, target: Target) -> Finding:
    """A finding of policy's. Rules that this build does not know are named as they are."""
    known = rule or Rule(found.rule, RuleType.CUSTOM, _SEVERITIES.get(found.severity, Severity.SEVERE))
    action = wire.ACTIONS.get(found.action, Action.BLOCK)
    return Finding(
        Verdict(known, found.bundle, action, target, found.span_start, found.span_end, found.kind), found.rationale
    )


def _violation(name: str, verdict: Verdict, payer: Payer, at: datetime) -> violation_pb2.Violation:
    message = violation_pb2.Violation(
        id=name,
        session_id=payer.session_id,
        turn_id=payer.generation_id,
        agent=payer.agent,
        monitor_name=verdict.rule.name,
        severity=_TO_SEVERITY[verdict.rule.severity],
        violation_type=verdict.rule.type.value,
        rationale=f"{verdict.target.value} matches rule {verdict.rule.name} of {verdict.bundle}",
        meta=fields.struct(
            {
                "bundle": verdict.bundle,
                "action": verdict.action.value,
                "target": verdict.target.value,
                "span": [verdict.start, verdict.end],
            }
        ),
    )
    message.create_time.FromDatetime(at)
    return message
