"""policy over the mesh, where leave is asked for: what people may see, who may decide, the token of a yes."""

from __future__ import annotations

from typing import Final

import grpc

from agentnet.orchestrator.v1 import input_pb2
from agentnet.policy.v1 import (
    bundle_pb2,
    override_service_pb2,
    override_service_pb2_grpc,
    policy_service_pb2,
    policy_service_pb2_grpc,
)
from services.orchestrator.peers_grpc import called, signed
from shared.errors import MeshError, Reason
from shared.identity import Principal, Signer

SERVICE: Final = "agentnet.policy.v1.OverrideService"
_SECONDS: Final = 5.0
_REASON: Final = 500
_GONE: Final = (
    Reason.ERROR_REASON_OVERRIDE_EXPIRED,
    Reason.ERROR_REASON_OVERRIDE_INVALID,
    Reason.ERROR_REASON_OVERRIDE_NOT_FOUND,
)


class GrpcLeave:
    """agentnet.policy.v1."""

    def __init__(self, channel: grpc.aio.Channel, signer: Signer) -> None:
        self._overrides = override_service_pb2_grpc.OverrideServiceStub(channel)
        self._policy = policy_service_pb2_grpc.PolicyServiceStub(channel)
        self._signer = signer

    async def shown(self, caller: Principal, arguments: str, *, agent: str, session_id: str) -> str:
        """See Leave. They are shown as an answer of the agent would be."""
        request = policy_service_pb2.CheckRequest(
            text=arguments, target=bundle_pb2.RULE_TARGET_OUTPUT, agent=agent, session_id=session_id
        )
        metadata = signed(self._signer, caller)
        found = await called(self._policy.Check(request, metadata=metadata, timeout=_SECONDS))
        return str(found.text)

    async def decide(self, person: Principal, asked: input_pb2.HumanInput, *, approved: bool, reason: str) -> str:
        """See Leave. Policy decides who may, and writes it down."""
        request = override_service_pb2.DecideHoldRequest(
            rules=asked.rules,
            agent=asked.agent.partition("@")[0],
            session_id=asked.session_id,
            tool=asked.tool.partition("@")[0],
            request_id=asked.request_id if asked.tool else "",
            approved=approved,
            reason=reason[:_REASON],
        )
        metadata = signed(self._signer, person)
        made = await called(self._overrides.DecideHold(request, metadata=metadata, timeout=_SECONDS))
        return str(made.override.id)

    async def token(self, caller: Principal, override_id: str) -> str:
        """See Leave."""
        if not override_id:
            return ""
        request = override_service_pb2.SignOverrideRequest(id=override_id)
        metadata = signed(self._signer, caller)
        try:
            found = await called(self._overrides.SignOverride(request, metadata=metadata, timeout=_SECONDS))
        except MeshError as error:
            if error.reason in _GONE:
                return ""
            raise
        return str(found.token)
