"""Bad input and bad credentials at the edge: each with its reason, over REST and gRPC."""

from __future__ import annotations

import base64
import json
from typing import Any

import aiohttp
import grpc
import jwt
import pytest
from google.rpc import error_details_pb2, status_pb2

from agentnet.client import AgentNet, AgentNetError
from tests.e2e.conftest import JSON, Mesh, Rest, field_of, reason_of, refused


async def test_an_unknown_agent_is_not_found(client: AgentNet, rest: Rest) -> None:
    error = await refused(client.sessions.start("x", agents=["Zeus"]))
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "AGENT_NOT_FOUND")
    assert error.suggestion
    status, body = await rest("POST", "/v1/sessions", {"topic": "x", "agents": ["Zeus"]})
    assert (status, reason_of(body)) == (404, "AGENT_NOT_FOUND")


async def test_an_empty_topic_names_the_field(client: AgentNet, rest: Rest) -> None:
    error = await refused(client.sessions.start("", agents=["Athena"]))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_REQUIRED")
    assert error.field == "topic"
    status, body = await rest("POST", "/v1/sessions", {"topic": " ", "agents": ["Athena"]})
    assert (status, reason_of(body), field_of(body)) == (400, "FIELD_REQUIRED", "topic")


async def test_a_ten_megabyte_prompt_names_the_field_and_the_limit(client: AgentNet, rest: Rest) -> None:
    huge = "x" * 10_000_000
    error = await refused(client.sessions.start(huge, agents=["Athena"]))
    assert (error.code, error.reason, error.field) == (
        grpc.StatusCode.INVALID_ARGUMENT, "FIELD_TOO_LONG", "topic",
    )  # fmt: skip
    assert error.facts == {"length": "10000000", "limit": "32768"}
    status, body = await rest("POST", "/v1/sessions", {"topic": huge, "agents": ["Athena"]})
    assert (status, reason_of(body), field_of(body)) == (400, "FIELD_TOO_LONG", "topic")


async def test_a_malformed_message_is_the_callers_fault(mesh: Mesh, credential: str) -> None:
    async with grpc.aio.insecure_channel(mesh.edge) as channel:
        call = channel.unary_unary("/agentnet.orchestrator.v1.SessionService/StartSession")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call(b"\xff\xff\xff", metadata=(("authorization", f"Bearer {credential}"),))
    trailers: Any = dict(raised.value.trailing_metadata() or ())
    status, info = status_pb2.Status.FromString(trailers["grpc-status-details-bin"]), error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (raised.value.code(), info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_MALFORMED")


async def test_malformed_json_is_a_bad_request(mesh: Mesh, credential: str) -> None:
    headers = {"authorization": f"Bearer {credential}", **JSON}
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.post(f"http://{mesh.edge}/v1/sessions", data=b"{not json") as answer:
            assert answer.status == 400


def unsigned_token() -> str:
    def part(data: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(data).encode()).decode().rstrip("=")

    claims = {"iss": "agentnet-local", "aud": "agentnet", "sub": "eve", "tenant": "default", "roles": ["admin"]}
    return f"{part({'alg': 'none', 'typ': 'JWT'})}.{part({**claims, 'exp': 4_000_000_000})}."


def foreign_token() -> str:
    claims = {"iss": "agentnet-local", "aud": "agentnet", "sub": "eve", "tenant": "default", "roles": ["admin"]}
    return jwt.encode({**claims, "exp": 4_000_000_000}, "k" * 32, algorithm="HS256")


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (lambda mesh: mesh.token(ttl_seconds=-600), "TOKEN_EXPIRED"),
        (lambda _: unsigned_token(), "TOKEN_UNTRUSTED"),
        (lambda _: foreign_token(), "TOKEN_UNTRUSTED"),
        (lambda _: "not-a-token", "TOKEN_MALFORMED"),
        (lambda _: "ank.default.key_X.nothing", "API_KEY_INVALID"),
        (lambda _: None, "CREDENTIALS_MISSING"),
    ],
    ids=["expired", "alg none", "wrong key", "no jwt", "no such key", "nothing"],
)
async def test_a_bad_credential_is_refused_with_the_reason(mesh: Mesh, made: Any, reason: str) -> None:
    credential = made(mesh)
    status, body = await Rest(mesh, credential)("GET", "/v1/caller")
    assert (status, reason_of(body)) == (401, reason)
    async with AgentNet.connect(mesh.edge, credential=credential or "") as stranger:
        stranger._transport.target = type(stranger._transport.target)(mesh.edge, credential)
        error = await refused(stranger.caller())
    assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, reason)


async def test_another_tenants_session_does_not_exist(mesh: Mesh, client: AgentNet) -> None:
    session = await client.sessions.start("ours", agents=["Athena"])
    stranger = mesh.token(tenant="other")
    status, body = await Rest(mesh, stranger)("GET", f"/v1/sessions/{session.id}")
    assert (status, reason_of(body)) == (404, "SESSION_NOT_FOUND")
    async with AgentNet.connect(mesh.edge, credential=stranger) as other:
        error = await refused(other.sessions.get(session.id))
        with pytest.raises(AgentNetError) as raised:
            async for _ in other.sessions.watch(session.id):
                pass
    assert error.reason == raised.value.reason == "SESSION_NOT_FOUND"


async def test_a_role_that_may_not_is_denied(mesh: Mesh) -> None:
    status, body = await Rest(mesh, mesh.token(role="auditor"))("POST", "/v1/sessions", {"topic": "x"})
    assert (status, reason_of(body)) == (403, "ROLE_INSUFFICIENT")


async def test_internal_methods_are_closed_at_the_edge(client: AgentNet, mesh: Mesh) -> None:
    from agentnet.cost.v1 import cost_service_pb2, cost_service_pb2_grpc

    stub = cost_service_pb2_grpc.CostServiceStub(client._transport.channel)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.Settle(cost_service_pb2.SettleRequest(), metadata=client._transport.target.metadata())
    assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_spoofed_identity_header_never_arrives(mesh: Mesh, credential: str) -> None:
    status, body = await Rest(mesh, None)("GET", "/v1/caller", **{"x-agentnet-identity": "forged"})
    assert (status, reason_of(body)) == (401, "CREDENTIALS_MISSING")
    status, body = await Rest(mesh, credential)("GET", "/v1/caller", **{"x-agentnet-identity": "forged"})
    assert (status, body["principal"]["subject"]) == (200, "local-admin")


async def test_a_path_that_is_not_there_is_not_found(rest: Rest) -> None:
    status, body = await rest("GET", "/v1/nothing")
    assert (status, reason_of(body)) == (404, "NOT_SERVED")
