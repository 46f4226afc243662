"""What the tests of the tool service call it with, and how they read its refusals."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from agentnet.tools.v1 import tool_pb2
from agentnet.tools.v1 import tool_service_pb2 as pb
from shared.errors import MeshError
from shared.rpc.status import from_rpc
from tests.support.identity import Keys

ADDER = "def adder(a, b):\n    return a + b\n"
Code = grpc.StatusCode


def tool(code: str = ADDER, **changes: Any) -> tool_pb2.Tool:
    given: dict[str, Any] = {
        "name": "adder",
        "exec_mode": "python",
        "function": {"code": code},
        "allowed_agents": ["Athena"],
    }
    return json_format.ParseDict(given | changes, tool_pb2.Tool())


async def register(stub: Any, keys: Keys, wanted: tool_pb2.Tool, *, tenant: str = "acme") -> tool_pb2.Tool:
    answer = await stub.RegisterTool(pb.RegisterToolRequest(tool=wanted), metadata=keys.metadata(tenant))
    registered: tool_pb2.Tool = answer.tool
    return registered


def invocation(name: str = "adder", arguments: dict[str, Any] | None = None, **changes: Any) -> pb.InvokeToolRequest:
    request = pb.InvokeToolRequest(**({"name": name, "agent": "Athena"} | changes))
    request.arguments.update(arguments or {})
    return request


async def refusal(call: Any) -> MeshError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return from_rpc(raised.value)


def said(error: MeshError) -> tuple[grpc.StatusCode, str]:
    return error.code, error.reason_name


async def events(stub: Any, keys: Keys, request: pb.InvokeToolRequest) -> list[pb.StreamToolResponse]:
    call = stub.StreamTool(pb.StreamToolRequest(invocation=request), metadata=keys.metadata())
    return [event async for event in call]
