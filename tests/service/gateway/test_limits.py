"""Limits at the door, through the real Envoy: over REST and gRPC, with the headers and the wait a client needs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2, status_pb2

from agentnet.gateway.v1 import identity_service_pb2 as pb
from agentnet.gateway.v1 import identity_service_pb2_grpc as rpc
from services.gateway.audit import STRANGERS, AuditFilter
from shared.paging import Page
from tests.support.edge import Edge, running_edge

pytestmark = pytest.mark.asyncio(loop_scope="module")
SLOW = {"per_second": 0.05, "burst": 3}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    limits = {
        "user": SLOW, "key": {"per_second": 0.05, "burst": 2}, "stranger": {"per_second": 0.01, "burst": 5},
        "method:UserService/ListRoles": {"per_second": 0.05, "burst": 1},
    }  # fmt: skip
    async with running_edge(tmp_path_factory.mktemp("edge"), limits=limits, platform_tenant="platform") as running:
        yield running


async def test_the_limit_is_told_with_every_answer_and_refuses_with_a_wait(edge: Edge) -> None:
    token = edge.token(subject="restless")
    answers = [await edge.bearer("GET", "/v1/caller", token) for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["ratelimit"].split(";")[1] for answer in answers] == ["r=2", "r=1", "r=0", "r=0"]
    assert answers[0].headers["ratelimit-policy"] == '"user";q=3;w=60'
    assert answers[3].reason == "RATE_LIMITED"
    assert 15 <= int(answers[3].headers["retry-after"]) <= 20
    delay = next(one["retry_delay"] for one in answers[3].body["details"] if one["@type"].endswith("RetryInfo"))
    assert 15 <= float(delay.rstrip("s")) <= 20


async def test_over_grpc_it_is_resource_exhausted_with_retry_info(edge: Edge) -> None:
    metadata = (("authorization", f"Bearer {edge.token(subject='grpc')}"),)
    async with grpc.aio.insecure_channel(edge.address) as channel:
        stub = rpc.IdentityServiceStub(channel)
        for _ in range(3):
            await stub.GetCaller(pb.GetCallerRequest(), metadata=metadata)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.GetCaller(pb.GetCallerRequest(), metadata=metadata)
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    trailers = {**dict(raised.value.trailing_metadata() or ()), **dict(raised.value.initial_metadata() or ())}
    status, retry = status_pb2.Status.FromString(trailers["grpc-status-details-bin"]), error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in status.details)
    assert retry.retry_delay.seconds >= 15


async def test_one_user_at_the_limit_leaves_others_alone(edge: Edge) -> None:
    for _ in range(4):
        last = await edge.bearer("GET", "/v1/caller", edge.token(subject="greedy"))
    assert last.status == 429
    assert (await edge.bearer("GET", "/v1/caller", edge.token(subject="modest"))).status == 200


async def test_a_key_and_a_method_have_limits_of_their_own(edge: Edge) -> None:
    made = await edge.ok("POST", "/v1/keys", edge.token(subject="maker"), {"display_name": "k", "roles": ["operator"]})
    statuses = [(await edge.rest("GET", "/v1/caller", x_api_key=made["secret"])).status for _ in range(3)]
    assert statuses == [200, 200, 429]
    for expected in (200, 429):
        answer = await edge.bearer("GET", "/v1/roles", edge.token(subject=f"lister-{expected}"))
        assert answer.status == expected
    assert answer.body["details"][0]["metadata"] == {"rule": "method"}


async def test_a_tenants_record_sets_its_rate(edge: Edge) -> None:
    operator = edge.token(tenant="platform")
    record = {"requests_per_second": 1, "burst": 2}
    await edge.ok("PUT", "/v1/tenants/small", operator, record)
    answers = [await edge.bearer("GET", "/v1/caller", edge.token(tenant="small", subject=f"u{n}")) for n in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert answers[2].body["details"][0]["metadata"] == {"rule": "tenant"}


async def without_length(edge: Edge, verb: str, path: str, credential: str) -> bytes:
    """The answer to a call that does not say how long its body is, for which the door is asked twice: who, then whether."""
    reader, writer = await asyncio.open_connection(*edge.address.split(":"))
    writer.write(f"{verb} {path} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n{credential}\r\n\r\n".encode())
    answer = await asyncio.wait_for(reader.read(65_536), 5)
    writer.close()
    return answer


@pytest.mark.parametrize(("verb", "path"), [("DELETE", "/v1/users/nobody"), ("POST", "/v1/keys/key_0/revoke")])
async def test_a_call_without_a_length_is_counted_once(edge: Edge, verb: str, path: str) -> None:
    caller = f"authorization: Bearer {edge.token(subject=f'bodiless-{verb}')}"
    answers = [await without_length(edge, verb, path, caller) for _ in range(4)]
    left = [line for answer in answers for line in answer.split(b"\r\n") if line.startswith(b"x-ratelimit-remaining")]
    assert [line.rpartition(b" ")[2] for line in left[-1:]] == [b"0"]
    assert [answer.split(b" ", 2)[1] for answer in answers] == [b"404", b"404", b"404", b"429"]


async def test_a_guess_without_a_length_is_counted_and_audited_once(tmp_path: Path) -> None:
    limits = {"stranger": {"per_second": 0.01, "burst": 2}}
    async with running_edge(tmp_path, limits=limits) as edge:
        answers = [await without_length(edge, "POST", "/v1/keys", "x-api-key: ank.acme.key_0.guess") for _ in range(3)]
        assert [answer.split(b" ", 2)[1] for answer in answers] == [b"401", b"401", b"429"]
        await asyncio.sleep(0.1)
        entries = await edge.stores.audit.entries(STRANGERS, AuditFilter(), Page())
    assert sorted(entry.reason for entry in entries) == ["API_KEY_INVALID", "API_KEY_INVALID", "RATE_LIMITED"]


async def test_guessing_at_credentials_ends_in_a_wait(edge: Edge) -> None:
    answers = [await edge.rest("GET", "/v1/caller", x_api_key=f"ank.acme.key_{n}.guess") for n in range(7)]
    assert [answer.status for answer in answers] == [401] * 5 + [429] * 2
    assert (await edge.bearer("GET", "/v1/caller", edge.token(subject="honest"))).status == 200
