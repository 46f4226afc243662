"""cost and policy over the mesh."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import grpc
import jwt

from agentnet.common.v1 import usage_pb2
from agentnet.cost.v1 import cost_pb2
from agentnet.cost.v1 import cost_service_pb2 as cost
from agentnet.cost.v1 import cost_service_pb2_grpc as cost_rpc
from agentnet.policy.v1 import bundle_pb2, violation_pb2
from agentnet.policy.v1 import policy_service_pb2 as policy
from agentnet.policy.v1 import policy_service_pb2_grpc as policy_rpc
from agentnet.policy.v1 import risk_service_pb2 as risks
from agentnet.policy.v1 import risk_service_pb2_grpc as risks_rpc
from services.inference.peers import Cost, Ending, Leased, Measure, Notice, Payer, Settlement
from services.inference.providers.contract import Usage
from shared import fields, identity
from shared.identity import CredentialKind, Principal, Signer
from shared.monitors import wire
from shared.monitors.pipeline import Finding, Outcome
from shared.monitors.rules import WINDOWED, Action, Bundle, Rule, RuleType, Severity, Target, Verdict
from shared.rpc.status import from_rpc

SERVICES: Final = (
    "agentnet.cost.v1.CostService",
    "agentnet.policy.v1.PolicyService",
    "agentnet.policy.v1.RiskService",
)
_MEASURES: Final = 500
_TTL: Final = timedelta(minutes=5)
_REMEMBERED: Final = 1024
_MESH: Final = Principal("mesh", "inference", frozenset({"operator"}), CredentialKind.SERVICE)
_SEVERITIES: Final = {
    bundle_pb2.SEVERITY_MINOR: Severity.MINOR,
    bundle_pb2.SEVERITY_MAJOR: Severity.MAJOR,
    bundle_pb2.SEVERITY_SEVERE: Severity.SEVERE,
}
_OUTCOMES: Final = {
    Ending.COMPLETED: cost_pb2.OUTCOME_COMPLETED,
    Ending.CANCELLED: cost_pb2.OUTCOME_CANCELLED,
    Ending.FAILED_OVER: cost_pb2.OUTCOME_FAILED_OVER,
    Ending.CUT: cost_pb2.OUTCOME_CUT,
    Ending.STOPPED: cost_pb2.OUTCOME_STOPPED,
}
_TARGETS: Final = {
    Target.PROMPT: bundle_pb2.RULE_TARGET_PROMPT,
    Target.OUTPUT: bundle_pb2.RULE_TARGET_OUTPUT,
    Target.TOOL_ARGUMENTS: bundle_pb2.RULE_TARGET_TOOL_ARGUMENTS,
}
_TO_SEVERITY: Final = {value: key for key, value in _SEVERITIES.items()}


class _OnBehalf:
    """Signs for the payer, whose own header may have ended by the time a generation does."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer
        self._signed: OrderedDict[Principal, tuple[float, str]] = OrderedDict()

    def metadata(self, principal: Principal) -> tuple[tuple[str, str], ...]:
        return ((identity.HEADER, self._header(principal)),)

    def _header(self, principal: Principal) -> str:
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


class GrpcCost(_OnBehalf):
    """agentnet.cost.v1."""

    def __init__(self, channel: grpc.aio.Channel, signer: Signer) -> None:
        super().__init__(signer)
        self._stub = cost_rpc.CostServiceStub(channel)

    async def reserve(
        self, payer: Payer, *, input_tokens: int, output_tokens: int, embedding_tokens: int = 0
    ) -> Leased:
        request = cost.ReserveRequest(
            generation_id=payer.generation_id,
            provider=payer.provider,
            model=payer.model,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            session_id=payer.session_id,
            agent=payer.agent,
            team=payer.team,
            sub_agent=payer.sub_agent,
            metered=_metered(embedding_tokens),
        )
        answer = await _called(self._stub.Reserve(request, metadata=self.metadata(payer.principal)))
        notices = [_notice(notice) for notice in answer.notices]
        return Leased(notices, answer.input_micros_usd_per_million, answer.output_micros_usd_per_million)

    async def extend(self, payer: Payer, *, output_tokens: int, spent: Usage) -> None:
        request = cost.ExtendLeaseRequest(generation_id=payer.generation_id, output_tokens=output_tokens)
        await _called(self._stub.ExtendLease(request, metadata=self.metadata(payer.principal)))

    async def settle(self, settlement: Settlement) -> Cost:
        payer, usage = settlement.payer, settlement.usage
        request = cost.SettleRequest(
            generation_id=payer.generation_id,
            provider=payer.provider,
            model=payer.model,
            session_id=payer.session_id,
            agent=payer.agent,
            team=payer.team,
            sub_agent=payer.sub_agent,
            turn_id=payer.turn_id,
            attempt=payer.attempt,
            outcome=_OUTCOMES[settlement.outcome],
            metered=_metered(settlement.embedding_tokens),
            usage=usage_pb2.Usage(
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
                cached_input_tokens=usage.cached_input_tokens,
                reasoning_tokens=usage.reasoning_tokens,
                estimated=usage.estimated,
            ),
        )
        if settlement.ended_at:
            request.end_time.FromDatetime(settlement.ended_at)
        answer = await _called(self._stub.Settle(request, metadata=self.metadata(payer.principal)))
        return Cost(answer.cost_event.cost.micros_usd, answer.cost_event.cost.price_version)


class GrpcPolicy(_OnBehalf):
    """agentnet.policy.v1."""

    def __init__(self, channel: grpc.aio.Channel, signer: Signer) -> None:
        super().__init__(signer)
        self._stub = policy_rpc.PolicyServiceStub(channel)
        self._risks = risks_rpc.RiskServiceStub(channel)

    async def bundle(self, payer: Payer, name: str) -> Bundle:
        request = policy.GetBundleRequest(name=name)
        answer = await _called(self._stub.GetBundle(request, metadata=self.metadata(payer.principal)))
        return wire.bundle(answer.bundle)

    async def excused(self, payer: Payer, text: str, token: str) -> frozenset[str]:
        request = policy.CheckRequest(
            text=text or " ",
            target=bundle_pb2.RULE_TARGET_PROMPT,
            agent=payer.agent,
            session_id=payer.session_id,
            override_token=token,
        )
        await _called(self._stub.Check(request, metadata=self.metadata(payer.principal)))
        # Policy found the token good; what it excuses stands in it.
        return frozenset(jwt.decode(token, options={"verify_signature": False})["rules"])

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
        )
        answer = await _called(self._stub.Check(request, metadata=self.metadata(payer.principal)))
        rules = {(bundle.label, rule.name): rule for bundle in bundles for rule in bundle.rules}
        found = [_finding(one, rules.get((one.bundle, one.rule)), target) for one in answer.findings]
        # What rules say that read every character is known already.
        slow = tuple(one for one in found if one.verdict.rule.type in WINDOWED)
        return Outcome(answer.text, tuple(found) if not answer.allowed else slow, blocked=not answer.allowed)

    async def measures(self, payer: Payer) -> Sequence[Measure]:
        request = risks.ListEnforcementActionsRequest(active=True, page_size=_MEASURES)
        answer = await _called(self._risks.ListEnforcementActions(request, metadata=self.metadata(payer.principal)))
        return [
            Measure(one.rule, one.action, one.target_kind, one.target, one.expire_time.ToDatetime(UTC))
            for one in answer.actions
        ]

    async def record(self, payer: Payer, verdicts: Sequence[tuple[str, Verdict]], *, at: datetime) -> None:
        request = policy.RecordViolationsRequest(
            violations=[_violation(name, verdict, payer, at) for name, verdict in verdicts]
        )
        await _called(self._stub.RecordViolations(request, metadata=self.metadata(payer.principal)))


async def _called(call: Any) -> Any:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise from_rpc(error) from None


def _metered(embedding_tokens: int) -> cost_pb2.Metered | None:
    return cost_pb2.Metered(embedding_tokens=embedding_tokens) if embedding_tokens else None


def _finding(found: policy.Finding, rule: Rule | None, target: Target) -> Finding:
    """A finding of policy's. Rules that this build does not know are named as they are."""
    known = rule or Rule(found.rule, RuleType.CUSTOM, _SEVERITIES.get(found.severity, Severity.SEVERE))
    action = wire.ACTIONS.get(found.action, Action.BLOCK)
    return Finding(
        Verdict(known, found.bundle, action, target, found.span_start, found.span_end, found.kind), found.rationale
    )


def _notice(notice: cost_pb2.Notice) -> Notice:
    return Notice(notice.explanation, cheaper=notice.action == cost_pb2.SOFT_ACTION_DOWNGRADE)


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
