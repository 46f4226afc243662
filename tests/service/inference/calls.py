"""How the tests of inference call it, and how they read its refusals."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from agentnet.inference.v1 import inference_service_pb2 as pb
from shared.errors import MeshError
from shared.rpc.status import from_rpc
from tests.support.identity import Keys
from tests.support.inference import Event, Replica

Code = grpc.StatusCode


async def generated(served: Replica, keys: Keys, request: pb.GenerateRequest, tenant: str = "acme") -> list[Event]:
    call = served.stub.Generate(request, metadata=keys.metadata(tenant))
    return [answer.event async for answer in call]


async def attached(
    served: Replica, keys: Keys, generation_id: str = "gen_1", *, after: int = 0, tenant: str = "acme"
) -> list[Event]:
    request = pb.AttachRequest(generation_id=generation_id, after_sequence=after)
    return [answer.event async for answer in served.stub.Attach(request, metadata=keys.metadata(tenant))]


async def refusal(call: Any) -> MeshError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return from_rpc(raised.value)


def said(error: MeshError) -> tuple[grpc.StatusCode, str]:
    return error.code, error.reason_name


async def until(holds: Any, seconds: float = 3) -> None:
    """Waits for something to become true."""
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.005)
