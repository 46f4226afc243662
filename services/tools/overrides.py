"""policy's word on override tokens, asked anew for every call: one taken back holds no longer."""

from __future__ import annotations

from typing import Final

import grpc

from agentnet.policy.v1 import override_service_pb2 as pb
from agentnet.policy.v1 import override_service_pb2_grpc as rpc
from services.tools.errors import PolicyUnavailable
from shared.monitors.arguments import Call
from shared.rpc.status import from_rpc

NAME: Final = "agentnet.policy.v1.OverrideService"
_UNAVAILABLE: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})


class GrpcOverrides:
    """Asks as the caller, in whose tenant the token must be."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = rpc.OverrideServiceStub(channel)

    async def rules(self, call: Call, token: str, *, request_id: str) -> frozenset[str]:
        """See Overrides."""
        request = pb.UseOverrideRequest(
            token=token, agent=call.agent, session_id=call.session_id, tool=call.tool, request_id=request_id
        )
        try:
            answer = await self._stub.UseOverride(request)
        except grpc.aio.AioRpcError as error:
            if error.code() in _UNAVAILABLE:
                raise PolicyUnavailable("the override cannot be checked", dependency="policy") from None
            raise from_rpc(error) from None
        return frozenset(answer.rules)
