"""The server and the channel every service uses, over a real port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from agentnet.common.v1 import principal_pb2
from agentnet.cost.v1 import cost_service_pb2 as cost
from agentnet.gateway.v1 import identity_service_pb2 as pb
from agentnet.gateway.v1 import identity_service_pb2_grpc as rpc
from agentnet.gateway.v1 import key_service_pb2 as keys_pb
from shared import identity
from shared.errors import STATUS_TRAILER, InvalidArgument, NotFound, Reason, ResourceExhausted, from_status
from shared.rpc import log as calls
from shared.rpc.channel import mesh_channel, retry_config
from shared.rpc.middleware import Call
from shared.rpc.server import run, serving
from shared.rpc.status import from_rpc
from shared.settings import BadSetting, MeshSettings
from tests.support.identity import Keys, make_keys

CONTRACTS = ((cost.DESCRIPTOR, "CostService"), (keys_pb.DESCRIPTOR, "KeyService"))
SERVICES = ("agentnet.gateway.v1.IdentityService",)


class Caller(rpc.IdentityServiceServicer):
    """Answers who calls, or fails in the way the request id asks for."""

    async def GetCaller(self, request: pb.GetCallerRequest, context: Any) -> pb.GetCallerResponse:
        match calls.request_id():
            case "invalid":
                raise InvalidArgument("topic is required", field="topic")
            case "limit":
                raise ResourceExhausted("come back later", retry_after=timedelta(seconds=3), budget_id="bud_1")
            case "fault":
                raise RuntimeError("the password is hunter2")
            case "slow":
                await asyncio.sleep(30)
        principal = identity.current()
        return pb.GetCallerResponse(
            principal=principal_pb2.Principal(tenant_id=principal.tenant_id, subject=principal.subject)
        )


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return make_keys(tmp_path)


def settings(keys: Keys) -> MeshSettings:
    return MeshSettings.model_validate(
        {"listen": "127.0.0.1:0", "postgres_dsn": "postgres://nowhere", "identity_keys": keys.jwks, "drain_grace": 1}
    )


async def register(server: grpc.aio.Server, _stack: AsyncExitStack) -> None:
    rpc.add_IdentityServiceServicer_to_server(Caller(), server)


@pytest.fixture
async def address(keys: Keys) -> AsyncIterator[str]:
    async with serving(settings(keys), register, service_names=SERVICES) as bound:
        yield bound


@pytest.fixture
async def stub(address: str) -> AsyncIterator[Any]:
    async with mesh_channel(address, services=SERVICES) as channel:
        yield rpc.IdentityServiceStub(channel)


async def error_of(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value


async def test_a_signed_identity_reaches_the_handler(stub: Any, keys: Keys) -> None:
    answer = await stub.GetCaller(pb.GetCallerRequest(), metadata=keys.metadata("acme", subject="ada"))
    assert (answer.principal.tenant_id, answer.principal.subject) == ("acme", "ada")


async def test_a_call_without_identity_is_refused(stub: Any) -> None:
    error = from_rpc(await error_of(stub.GetCaller(pb.GetCallerRequest())))
    assert (error.code, error.reason_name) == (grpc.StatusCode.UNAUTHENTICATED, "IDENTITY_MISSING")


async def test_an_identity_of_another_mesh_is_refused(stub: Any, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    stranger = make_keys(tmp_path / "other")
    error = from_rpc(await error_of(stub.GetCaller(pb.GetCallerRequest(), metadata=stranger.metadata())))
    assert (error.code, error.reason_name) == (grpc.StatusCode.UNAUTHENTICATED, "IDENTITY_MISSING")


async def test_a_method_that_streams_requests_is_not_there_for_it_would_pass_unauthenticated(keys: Keys) -> None:
    async def swallow(requests: AsyncIterator[bytes], _context: Any) -> bytes:
        return b"".join([piece async for piece in requests])

    async def register_stream(server: grpc.aio.Server, _stack: AsyncExitStack) -> None:
        handler = grpc.stream_unary_rpc_method_handler(swallow)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("any.Service", {"Swallow": handler}),))

    async with (
        serving(settings(keys), register_stream, service_names=()) as bound,
        grpc.aio.insecure_channel(bound) as channel,
    ):
        method = channel.stream_unary("/any.Service/Swallow")
        for metadata in ((), keys.metadata()):
            error = await error_of(method(iter([b"a"]), metadata=metadata))
            assert error.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_an_error_carries_reason_field_and_facts(stub: Any, keys: Keys) -> None:
    metadata = (*keys.metadata(), (calls.REQUEST_ID, "invalid"))
    raw = await error_of(stub.GetCaller(pb.GetCallerRequest(), metadata=metadata))
    trailers = {key: value for key, value in raw.trailing_metadata() or ()}
    status = status_pb2.Status.FromString(trailers[STATUS_TRAILER])
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(bad)
    assert (info.reason, info.domain) == ("FIELD_INVALID", "agentnet")
    assert bad.field_violations[0].field == "topic"


async def test_a_limit_says_when_to_come_back(stub: Any, keys: Keys) -> None:
    metadata = (*keys.metadata(), (calls.REQUEST_ID, "limit"))
    error = from_rpc(await error_of(stub.GetCaller(pb.GetCallerRequest(), metadata=metadata)))
    assert error.retry_after is not None
    assert error.retry_after.total_seconds() == 3
    assert error.facts == {"budget_id": "bud_1"}


async def test_a_fault_is_opaque_and_its_log_line_is_found_by_the_reference(
    stub: Any, keys: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    metadata = (*keys.metadata(), (calls.REQUEST_ID, "fault"))
    error = from_rpc(await error_of(stub.GetCaller(pb.GetCallerRequest(), metadata=metadata)))
    assert error.code is grpc.StatusCode.INTERNAL
    assert "hunter2" not in str(error)
    assert len(error.facts["reference"]) == 16


async def test_a_call_ends_at_its_deadline_with_our_reason(stub: Any, keys: Keys) -> None:
    metadata = (*keys.metadata(), (calls.REQUEST_ID, "slow"))
    error = from_rpc(await error_of(stub.GetCaller(pb.GetCallerRequest(), metadata=metadata, timeout=0.2)))
    assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_malformed_message_is_the_callers_fault(address: str, keys: Keys) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary("/agentnet.gateway.v1.IdentityService/GetCaller")
        error = from_rpc(await error_of(call(b"\xff\xff\xff", metadata=keys.metadata())))
    assert (error.code, error.reason_name) == (grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_MALFORMED")


async def test_health_and_reflection_answer_without_identity(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(service=SERVICES[0]))
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        replies = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([request]))
        names = [entry.name async for reply in replies for entry in reply.list_services_response.service]
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert SERVICES[0] in names


async def test_a_draining_server_finishes_the_call_it_has(keys: Keys) -> None:
    entered = asyncio.Event()
    release = asyncio.Event()

    class Slow(rpc.IdentityServiceServicer):
        async def GetCaller(self, request: pb.GetCallerRequest, context: Any) -> pb.GetCallerResponse:
            entered.set()
            await release.wait()
            return pb.GetCallerResponse()

    async def slow(server: grpc.aio.Server, _stack: AsyncExitStack) -> None:
        rpc.add_IdentityServiceServicer_to_server(Slow(), server)

    async with AsyncExitStack() as stack:
        bound = await stack.enter_async_context(serving(settings(keys), slow, service_names=SERVICES))
        async with grpc.aio.insecure_channel(bound) as channel:
            call = rpc.IdentityServiceStub(channel).GetCaller(pb.GetCallerRequest(), metadata=keys.metadata())
            task = asyncio.ensure_future(call)
            await entered.wait()
            closing = asyncio.ensure_future(stack.aclose())
            await asyncio.sleep(0)
            release.set()
            answer = await task
            await closing
    assert answer == pb.GetCallerResponse()


def test_only_idempotent_methods_are_retried() -> None:
    services = [file.services_by_name[name].full_name for file, name in CONTRACTS]
    names = retry_config(tuple(services))["methodConfig"][0]["name"]
    methods = {entry["method"] for entry in names}
    assert "Settle" in methods
    assert "CreateKey" not in methods


def test_an_error_survives_the_wire() -> None:
    error = NotFound("no agent Zeus", reason=Reason.ERROR_REASON_AGENT_NOT_FOUND, agent="Zeus")
    back = from_status(error.status())
    assert isinstance(back, NotFound)
    assert (back.reason_name, back.facts) == ("AGENT_NOT_FOUND", {"agent": "Zeus"})


ORDER: list[str] = []


def traced(name: str, *, refuses: str = "") -> Any:
    """Middleware that writes down when it is entered and left."""

    @asynccontextmanager
    async def around(call: Call) -> AsyncIterator[None]:
        ORDER.append(f"{name} in {call.method.rpartition('/')[2]} {identity.current().subject}")
        assert identity.HEADER not in call.metadata
        if call.metadata.get(calls.REQUEST_ID) == refuses:
            raise NotFound(f"{name} hides it")
        try:
            yield
        finally:
            ORDER.append(f"{name} out")

    return around


def outer() -> Any:
    return traced("outer")


def inner() -> Any:
    return traced("inner", refuses="hidden")


async def test_the_operators_middleware_runs_in_its_order_around_calls_that_were_admitted(keys: Keys) -> None:
    ORDER.clear()
    named = {"middleware": [f"{__name__}:outer", f"{__name__}:inner"]}
    async with (
        serving(settings(keys).model_copy(update=named), register, service_names=SERVICES) as bound,
        mesh_channel(bound, services=SERVICES) as channel,
    ):
        stub = rpc.IdentityServiceStub(channel)
        await error_of(stub.GetCaller(pb.GetCallerRequest()))
        assert ORDER == []
        await stub.GetCaller(pb.GetCallerRequest(), metadata=keys.metadata())
        assert ORDER == ["outer in GetCaller ada", "inner in GetCaller ada", "inner out", "outer out"]
        hidden = await error_of(
            stub.GetCaller(pb.GetCallerRequest(), metadata=(*keys.metadata(), (calls.REQUEST_ID, "hidden")))
        )
        assert (from_rpc(hidden).message, ORDER[-1]) == ("inner hides it", "outer out")


def test_what_a_setting_leads_to_is_told_in_a_sentence_a_fault_and_stops_the_start(
    keys: Keys, capsys: pytest.CaptureFixture[str]
) -> None:
    class CatalogueWrong(BadSetting):
        setting = "AGENTNET_CATALOGUE"

    async def refuse(_server: grpc.aio.Server, _stack: AsyncExitStack) -> None:
        raise CatalogueWrong("models.a: no provider\nmodels.b: no price")

    with pytest.raises(SystemExit) as raised:
        run("trial", settings(keys), refuse, service_names=())
    said = capsys.readouterr().err
    assert raised.value.code == 2
    assert "bad setting AGENTNET_CATALOGUE: models.a: no provider\nbad setting AGENTNET_CATALOGUE: models.b: no" in said
    assert "Traceback" not in said
