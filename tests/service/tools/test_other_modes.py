"""Tools that are methods of gRPC servers, and tools that ask memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from agentnet.memory.v1 import memory_service_pb2 as memory
from agentnet.memory.v1 import memory_service_pb2_grpc as memory_rpc
from agentnet.tools.v1 import tool_pb2
from services.tools.egress import Egress
from services.tools.executor import Executor
from services.tools.grpc_methods import GrpcExecutor
from services.tools.retrieval import RetrievalExecutor
from services.tools.secrets import Secrets
from tests.service.tools.calls import Code, invocation, refusal, register, said
from tests.support.identity import Keys

HEALTH = "grpc.health.v1.Health"


@dataclass
class Peer(health_pb2_grpc.HealthServicer, memory_rpc.MemoryServiceServicer):
    """A server that answers health checks as told and remembers what memory was asked."""

    address: str = ""
    asked: list[memory.RecallRequest] = field(default_factory=list)
    metadata: list[dict[str, Any]] = field(default_factory=list)

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Any) -> health_pb2.HealthCheckResponse:
        self.metadata.append(dict(context.invocation_metadata()))
        if request.service == "unknown":
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        if request.service == "away":
            await context.abort(grpc.StatusCode.UNAVAILABLE, "gone fishing")
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)

    async def Recall(self, request: memory.RecallRequest, context: Any) -> memory.RecallResponse:
        self.asked.append(request)
        answer = memory.RecallResponse()
        answer.matches.add(score=0.9).memory.content = "Routers restart on Sunday."
        return answer


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    found, server = Peer(), grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(found, server)
    memory_rpc.add_MemoryServiceServicer_to_server(found, server)
    reflection.enable_server_reflection((HEALTH, reflection.SERVICE_NAME), server)
    found.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield found
    await server.stop(0)


@pytest.fixture
async def executors(peer: Peer, tmp_path: Path) -> AsyncIterator[dict[str, Executor]]:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "key").write_text("topsecret")
    async with grpc.aio.insecure_channel(peer.address) as channel:
        yield {
            "grpc": GrpcExecutor(Egress(["127.0.0.1"]), Secrets(tmp_path)),
            "retrieval": RetrievalExecutor(channel),
        }


def tool(peer: Peer, method: str = f"{HEALTH}/Check", **changes: Any) -> tool_pb2.Tool:
    target = {"address": peer.address, "method": method, "timeout": "3s"}
    given = {"name": "check", "exec_mode": "grpc", "allowed_agents": ["*"], "grpc": target}
    return json_format.ParseDict(given | changes, tool_pb2.Tool())


def call(stub: Any, keys: Keys, name: str = "check", **arguments: Any) -> Any:
    return stub.InvokeTool(invocation(name, arguments), metadata=keys.metadata())


async def test_a_method_is_called_by_what_the_server_says_of_it(stub: Any, keys: Keys, peer: Peer) -> None:
    await register(stub, keys, tool(peer, auth={"type": "api_key_ref", "key_id": "key"}))
    answer = await call(stub, keys, service="sums")
    assert json_format.MessageToDict(answer.finished.result) == {"status": "SERVING"}
    assert peer.metadata[0]["authorization"] == "Bearer topsecret"


@pytest.mark.parametrize(
    ("method", "arguments"),
    [(f"{HEALTH}/Nothing", {}), ("no.such.v1.Service/Check", {}), (f"{HEALTH}/Check", {"wrong": 1}),
     (f"{HEALTH}/Check", {"service": "unknown"})],
)  # fmt: skip
async def test_what_the_server_does_not_do_is_told(
    stub: Any, keys: Keys, peer: Peer, method: str, arguments: dict[str, Any]
) -> None:
    await register(stub, keys, tool(peer, method))
    assert said(await refusal(call(stub, keys, **arguments))) == (Code.FAILED_PRECONDITION, "TOOL_FAILED")


async def test_a_call_whose_answer_is_lost_is_unknown_unless_it_may_be_repeated(
    stub: Any, keys: Keys, peer: Peer
) -> None:
    await register(stub, keys, tool(peer))
    assert said(await refusal(call(stub, keys, service="away"))) == (Code.FAILED_PRECONDITION, "TOOL_OUTCOME_UNKNOWN")
    await register(stub, keys, tool(peer, version="2.0.0", idempotent=True))
    assert said(await refusal(call(stub, keys, service="away"))) == (Code.FAILED_PRECONDITION, "TOOL_FAILED")
    assert len(peer.metadata) == 1 + 3


@pytest.mark.parametrize(
    ("address", "code", "reason"),
    [("10.0.0.1:50051", Code.FAILED_PRECONDITION, "EGRESS_REFUSED"), ("127.0.0.1:1", Code.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE")],
)  # fmt: skip
async def test_a_server_that_cannot_be_reached_is_told(
    stub: Any, keys: Keys, peer: Peer, address: str, code: Any, reason: str
) -> None:
    target = {"address": address, "method": f"{HEALTH}/Check", "timeout": "2s"}
    await register(stub, keys, tool(peer, grpc=target))
    assert said(await refusal(call(stub, keys))) == (code, reason)


@pytest.mark.parametrize(
    ("target", "field"),
    [({"address": "host", "method": "a.B/C"}, "tool.grpc.address"), ({"address": "h:1", "method": "C"}, "tool.grpc.method")],
)  # fmt: skip
async def test_a_method_at_fault_is_refused_with_its_field(
    stub: Any, keys: Keys, peer: Peer, target: dict[str, str], field: str
) -> None:
    error = await refusal(register(stub, keys, tool(peer, grpc=target)))
    assert (error.code, error.field) == (Code.INVALID_ARGUMENT, field)


async def test_a_retrieval_tool_asks_memory_for_its_agent(stub: Any, keys: Keys, peer: Peer) -> None:
    given = {"name": "recall", "exec_mode": "retrieval", "allowed_agents": ["Athena"]}
    await register(stub, keys, json_format.ParseDict(given, tool_pb2.Tool()))
    answer = await call(stub, keys, "recall", query="When do routers restart?", limit=3)
    found = json_format.MessageToDict(answer.finished.result)
    assert found == {"matches": [{"memory": {"content": "Routers restart on Sunday."}, "score": 0.9}]}
    assert (peer.asked[0].query, peer.asked[0].limit, peer.asked[0].agent) == ("When do routers restart?", 3, "Athena")


async def test_a_question_that_memory_does_not_take_is_told(stub: Any, keys: Keys, peer: Peer) -> None:
    given = {"name": "recall", "exec_mode": "retrieval", "allowed_agents": ["Athena"]}
    await register(stub, keys, json_format.ParseDict(given, tool_pb2.Tool()))
    error = await refusal(call(stub, keys, "recall", query=["not", "a", "text"]))
    assert said(error) == (Code.FAILED_PRECONDITION, "TOOL_FAILED")
