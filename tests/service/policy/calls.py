"""What the tests of the policy service call it with, and how they read its refusals."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from agentnet.policy.v1 import policy_service_pb2 as pb
from shared.errors import MeshError
from shared.rpc.status import from_rpc
from tests.support.identity import Keys

WORDS = "rules:\n  - {name: words, type: keyword, severity: severe, keywords: [mesh]}\n"


async def create(
    stub: Any, keys: Keys, document: str = WORDS, *, name: str = "words", labels: tuple[str, ...] = (), **more: Any
) -> Any:
    request = pb.CreateBundleRequest(name=name, document=document, labels=labels, **more)
    return (await stub.CreateBundle(request, metadata=keys.metadata())).bundle


async def check(stub: Any, keys: Keys, text: str, **more: Any) -> pb.CheckResponse:
    answer: pb.CheckResponse = await stub.Check(pb.CheckRequest(text=text, **more), metadata=keys.metadata())
    return answer


async def refusal(call: Any) -> MeshError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return from_rpc(raised.value)
