"""What the tests of the cost service call it with, and how they read its refusals."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from agentnet.common.v1 import usage_pb2
from agentnet.cost.v1 import cost_service_pb2 as pb
from shared.errors import MeshError
from shared.rpc.status import from_rpc

Code = grpc.StatusCode


def reservation(**changes: Any) -> pb.ReserveRequest:
    given: dict[str, Any] = {"generation_id": "g1", "provider": "p", "model": "m", "output_tokens": 10}
    return pb.ReserveRequest(**(given | changes))


def settlement(usage: dict[str, Any] | None = None, **changes: Any) -> pb.SettleRequest:
    given: dict[str, Any] = {"generation_id": "g1", "provider": "p", "model": "m"}
    spent = usage_pb2.Usage(**({"input_tokens": 10, "output_tokens": 5} if usage is None else usage))
    return pb.SettleRequest(**(given | changes), usage=spent)


async def refusal(call: Any) -> MeshError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return from_rpc(raised.value)


def said(error: MeshError) -> tuple[grpc.StatusCode, str, str | None]:
    return error.code, error.reason_name, error.field
