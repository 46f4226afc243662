"""What rules found where nobody keeps a record of it, told to policy: beside the work, and never at its cost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

import grpc

from agentnet.policy.v1 import policy_service_pb2 as pb
from agentnet.policy.v1 import violation_pb2
from agentnet.policy.v1.policy_service_pb2_grpc import PolicyServiceStub
from shared import fields, identity
from shared.clock import Clock
from shared.identity import CredentialKind, Principal, Signer
from shared.ids import Ids
from shared.monitors.decisions import Decided, Decisions, Send, telling
from shared.monitors.rules import Verdict
from shared.monitors.wire import SEVERITIES
from shared.rpc.status import from_rpc
from shared.telemetry import meter

_AT_ONCE: Final = 100
_TTL: Final = timedelta(minutes=5)
_told = meter.create_counter(
    "policy_violations_told_total", description="judgements with violations: reported, dropped, refused"
)


@asynccontextmanager
async def recording(
    channel: grpc.aio.Channel, signer: Signer, service: str, *, clock: Clock, ids: Ids
) -> AsyncIterator[Decisions]:
    """A service's violations, told to policy while the block runs; what waits at its end is told then."""
    send = recorded(channel, signer, service)
    decisions = Decisions(lambda _: 1.0, send, clock=clock, ids=ids, counter=_told)
    async with telling("violations", decisions):
        yield decisions


def recorded(channel: grpc.aio.Channel, signer: Signer, service: str) -> Send:
    """RecordViolations over the mesh, in the name of a service and in the tenant of those who were judged."""
    stub = PolicyServiceStub(channel)

    async def send(tenant: str, decisions: Sequence[Decided]) -> None:
        caller = Principal(tenant, service, frozenset({"operator"}), CredentialKind.SERVICE)
        metadata = ((identity.HEADER, signer.sign(caller, _TTL)),)
        found = [_violation(one, place) for one in decisions for place in range(len(one.verdicts))]
        try:
            for start in range(0, len(found), _AT_ONCE):
                request = pb.RecordViolationsRequest(violations=found[start : start + _AT_ONCE])
                await stub.RecordViolations(request, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error) from None

    return send


def _violation(one: Decided, place: int) -> violation_pb2.Violation:
    """A verdict of a judgement. Reported twice it has the same id, and is stored once."""
    verdict = one.verdicts[place]
    message = violation_pb2.Violation(
        id=f"{one.id}-{place}",
        session_id=one.session_id,
        agent=one.agent,
        monitor_name=verdict.rule.name,
        severity=SEVERITIES[verdict.rule.severity],
        violation_type=verdict.rule.type.value,
        rationale=_rationale(one, verdict),
        meta=fields.struct({
            "bundle": verdict.bundle, "action": verdict.action.value, "target": verdict.target.value, "tool": one.tool,
        }),
    )  # fmt: skip
    if one.at:
        message.create_time.FromDatetime(one.at)
    return message


def _rationale(one: Decided, verdict: Verdict) -> str:
    what = f"the call of {one.tool}" if one.tool else verdict.target.value
    return f"{what} matches rule {verdict.rule.name} of {verdict.bundle}"
