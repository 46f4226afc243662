"""What policy says of what an engine is asked and answers: an engine speaks under the same rules as a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Protocol

import grpc

from agentnet.inference.v1 import generation_pb2
from agentnet.policy.v1 import bundle_pb2, policy_service_pb2, policy_service_pb2_grpc
from services.orchestrator.reasoning.engines.contract import Generated
from shared import identity
from shared.errors import FailedPrecondition, Reason
from shared.identity import Principal, Signer
from shared.rpc.status import from_rpc

SERVICE: Final = "agentnet.policy.v1.PolicyService"
PROMPT, OUTPUT = "prompt", "output"
_TARGETS: Final = {PROMPT: bundle_pb2.RULE_TARGET_PROMPT, OUTPUT: bundle_pb2.RULE_TARGET_OUTPUT}
_APPROVAL: Final = "require_approval"
_STOPPING: Final = ("block", _APPROVAL)
_SECONDS: Final = 5.0
_TTL: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Judged:
    """A text after policy, and its verdicts as a generation has them."""

    text: str
    verdicts: tuple[Generated, ...] = ()


class PolicyPeer(Protocol):
    """policy, on behalf of who started the session."""

    async def judge(
        self, caller: Principal, text: str, *, target: str, agent: str, bundles: Sequence[str], session_id: str,
        override_token: str = "",
    ) -> Judged:  # fmt: skip
        """The text with its redactions. Raises FailedPrecondition (POLICY_BLOCKED, CALL_APPROVAL_REQUIRED), and
        Unavailable: then nothing is said.
        """


class GrpcPolicy:
    """agentnet.policy.v1."""

    def __init__(self, channel: grpc.aio.Channel, signer: Signer) -> None:
        self._stub: Any = policy_service_pb2_grpc.PolicyServiceStub(channel)
        self._signer = signer

    async def judge(
        self, caller: Principal, text: str, *, target: str, agent: str, bundles: Sequence[str], session_id: str,
        override_token: str = "",
    ) -> Judged:  # fmt: skip
        request = policy_service_pb2.CheckRequest(
            text=text, target=_TARGETS[target], agent=agent, bundles=bundles, session_id=session_id,
            override_token=override_token,
        )  # fmt: skip
        metadata = ((identity.HEADER, self._signer.sign(caller, _TTL)),)
        try:
            found = await self._stub.Check(request, metadata=metadata, timeout=_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error) from None
        verdicts = tuple(_verdict(finding, target) for finding in found.findings)
        if not found.allowed:
            raise _refusal([found.verdict for found in verdicts])
        return Judged(found.text, verdicts)


def _refusal(verdicts: Sequence[generation_pb2.PolicyVerdict]) -> FailedPrecondition:
    """Leave helps only where no rule is against it whatever anybody says."""
    stops = next((one for action in _STOPPING for one in verdicts if one.action == action), None)
    found = stops or generation_pb2.PolicyVerdict()
    if found.action == _APPROVAL:
        return FailedPrecondition(
            f"it waits for approval, by rule {found.rule} of {found.bundle}",
            reason=Reason.ERROR_REASON_CALL_APPROVAL_REQUIRED, rule=found.rule, rules=found.rule, bundle=found.bundle,
            bundles=found.bundle,
        )  # fmt: skip
    return FailedPrecondition(
        f"the rule {found.rule} blocks this", reason=Reason.ERROR_REASON_POLICY_BLOCKED, rule=found.rule,
        bundle=found.bundle,
    )  # fmt: skip


def _verdict(finding: policy_service_pb2.Finding, target: str) -> Generated:
    action = bundle_pb2.RuleAction.Name(finding.action).removeprefix("RULE_ACTION_").lower()
    severity = bundle_pb2.Severity.Name(finding.severity).removeprefix("SEVERITY_").lower()
    return Generated(
        verdict=generation_pb2.PolicyVerdict(
            rule=finding.rule,
            bundle=finding.bundle,
            action=action,
            severity=severity,
            span_start=finding.span_start,
            span_end=finding.span_end,
            target=target,
        )
    )
