"""What a REST call says and the contract does not know is refused by its name, through the real Envoy, and nothing that
the contract knows is: not a body's fields, not a query's.
"""

from __future__ import annotations

import asyncio
import io
import json
import random
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
import pytest_asyncio
from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor

from agentnet.tools.v1 import tool_service_pb2, tool_service_pb2_grpc
from services.gateway import contract
from services.gateway.names import Names
from shared.errors import InvalidArgument
from tests.support.echo import Echo, filled, methods_with_body, rule
from tests.support.edge import Answer, Edge, inputs_of, running_edge, running_envoy
from tests.support.valkey import free_port

pytestmark = pytest.mark.asyncio(loop_scope="module")

MANY = {"per_second": 10_000, "burst": 10_000}
ECHO = Echo()
WITH_BODY = methods_with_body()
TOOL = {"name": "wipe"}
INVOKE = {"name": "wipe", "arguments": {"level": {"any": ["thing"]}}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    async with running_edge(
        tmp_path_factory.mktemp("names"), serve=ECHO.serve, limits={"user": MANY, "method": MANY}
    ) as running:
        yield running


async def refused(edge: Edge, method: str, path: str, body: Any = None) -> Answer:
    """The answer to a call that must not have reached anyone."""
    before = len(ECHO.asked)
    answer = await edge.bearer(method, path, edge.token(), body)
    assert (answer.status, answer.reason, len(ECHO.asked)) == (400, "FIELD_INVALID", before), answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.body["code"] == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    return answer


def violation(answer: Answer) -> str:
    (found,) = (one["field_violations"] for one in answer.body["details"] if "field_violations" in one)
    return str(found[0]["field"])


async def raw(
    edge: Edge, path: str, body: bytes, *, token: str | None = None, kind: str = "application/json"
) -> Answer:
    headers = {"authorization": f"Bearer {token or edge.token()}", "content-type": kind}
    async with (
        aiohttp.ClientSession() as session,
        session.post(edge.url + path, data=io.BytesIO(body), headers=headers) as answer,
    ):
        return Answer(answer.status, answer.headers, await answer.text())


def encoded(body: Any) -> bytes:
    return json.dumps(body).encode()


class TestBodies:
    async def test_a_field_by_a_wrong_name_is_refused_and_the_right_one_named(self, edge: Edge) -> None:
        answer = await refused(edge, "POST", "/v1/tools", TOOL | {"level": "GOVERNANCE_LEVEL_RESTRICTED"})
        assert violation(answer) == "tool.level"
        assert answer.body["message"] == "there is no field tool.level; did you mean tool.governance_level?"

    async def test_without_a_content_type_too(self, edge: Edge) -> None:
        answer = await raw(edge, "/v1/tools", encoded(TOOL | {"level": 1}), kind="text/plain")
        assert violation(answer) == "tool.level"

    @pytest.mark.parametrize(
        ("path", "body", "field"),
        [
            ("/v1/generations", {"messages": [], "modle": "m"}, "modle"),
            ("/v1/generations", {"messages": [{}, {"rol": 1}]}, "messages[1].rol"),
            ("/v1/tools", TOOL | {"auth": {"nonsense": 1}}, "tool.auth.nonsense"),
            ("/v1/tools", TOOL | {"http": {"ulr": "x"}}, "tool.http.ulr"),
            ("/v1/tools", TOOL | {"nonsense": None}, "tool.nonsense"),
            ("/v1/tools", TOOL | {"x" * 5000: 1}, "tool." + "x" * 100),
        ],
    )
    async def test_at_any_depth_with_its_whole_path(self, edge: Edge, path: str, body: Any, field: str) -> None:
        assert violation(await refused(edge, "POST", path, body)) == field

    async def test_what_is_free_in_form_is_left_alone(self, edge: Edge) -> None:
        await edge.ok("POST", "/v1/tools/invoke", edge.token(), INVOKE)
        assert json_format.MessageToDict(ECHO.asked[-1].arguments) == INVOKE["arguments"]

    async def test_both_of_a_fields_names_are_right(self, edge: Edge) -> None:
        for name in ("governance_level", "governanceLevel"):
            await edge.ok("POST", "/v1/tools", edge.token(), TOOL | {name: "GOVERNANCE_LEVEL_RESTRICTED"})
            assert ECHO.asked[-1].tool.governance_level

    async def test_a_big_body_is_read_for_its_names_alone(self, edge: Edge) -> None:
        long = 'a "quoted" \\ line\n' * 400_000
        assert (await raw(edge, "/v1/tools", encoded(TOOL | {"changelog": long}))).status == 200
        assert ECHO.asked[-1].tool.changelog == long
        answer = await raw(edge, "/v1/tools", encoded(TOOL | {"changelog": long, "level": 1}))
        assert (answer.status, violation(answer)) == (400, "tool.level")

    async def test_a_body_with_too_many_names_to_read_is_refused(self, edge: Edge) -> None:
        answer = await raw(edge, "/v1/tools", encoded(TOOL | {"allowed_agents": ["agent"] * 600_000}))
        assert (answer.status, answer.body["code"]) == (413, grpc.StatusCode.RESOURCE_EXHAUSTED.value[0])
        assert "besides its long strings" in answer.body["message"]

    async def test_what_is_not_json_gets_an_error_and_reaches_nobody(self, edge: Edge) -> None:
        before = len(ECHO.asked)
        for body in (b'{"name": ', b"\xff\xfe", b"{level: 'x'}", b"[" * 5000):
            answer = await raw(edge, "/v1/tools", body)
            assert (answer.status, answer.body["code"]) == (400, 3), body
        assert len(ECHO.asked) == before

    async def test_who_may_not_call_learns_no_more(self, edge: Edge) -> None:
        answer = await raw(edge, "/v1/tools", b'{"level": 1}', token="nobody")
        assert answer.status == 401

    async def test_a_method_that_takes_no_body_is_sent_none(self, edge: Edge) -> None:
        assert violation(await refused(edge, "DELETE", "/v1/roles/x", {"force": True})) == "body"

    async def test_streams_still_stream(self, edge: Edge) -> None:
        answer = await edge.bearer("POST", "/v1/tools/stream", edge.token(), {"invocation": INVOKE})
        assert (answer.status, answer.text.count("data:")) == (200, 2), answer.text
        assert (
            violation(await refused(edge, "POST", "/v1/tools/stream", {"invocation": INVOKE | {"agnet": 1}}))
            == "invocation.agnet"
        )


class TestQueries:
    async def test_an_unknown_parameter_is_refused(self, edge: Edge) -> None:
        answer = await refused(edge, "GET", "/v1/tools?page_sise=3")
        assert (violation(answer), "did you mean page_size?" in answer.body["message"]) == ("page_sise", True)
        assert violation(await refused(edge, "GET", "/v1/tools?page_size.x=3")) == "page_size.x"

    async def test_known_ones_pass_by_both_names(self, edge: Edge) -> None:
        for name in ("page_size", "pageSize"):
            await edge.ok("GET", f"/v1/tools?{name}=3", edge.token())
            assert ECHO.asked[-1].page_size == 3


class TestOthers:
    async def test_grpc_is_untouched(self, edge: Edge) -> None:
        async with grpc.aio.insecure_channel(edge.address) as channel:
            metadata = (("authorization", f"Bearer {edge.token()}"),)
            request = tool_service_pb2.InvokeToolRequest(name="x" * 5_000_000)
            await tool_service_pb2_grpc.ToolServiceStub(channel).InvokeTool(request, metadata=metadata)
        assert ECHO.asked[-1] == request

    async def test_an_admission_that_is_away_is_still_said_in_json(self, edge: Edge, tmp_path: Path) -> None:
        port = free_port()
        inputs = inputs_of(edge.state, f"127.0.0.1:{free_port()}", edge=port, internal=free_port())
        async with running_envoy(inputs, tmp_path):
            for _ in range(200):
                with suppress(aiohttp.ClientError):
                    answer = await replace(edge, address=f"127.0.0.1:{port}").bearer("GET", "/v1/tools", edge.token())
                    break
                await asyncio.sleep(0.05)
        assert (answer.status, answer.body["code"]) == (503, grpc.StatusCode.UNAVAILABLE.value[0])

    async def test_facades_judge_their_own_bodies(self, edge: Edge) -> None:
        answer = await edge.bearer("POST", "/graphql?x=1", edge.token(), {"query": "{ __typename }", "ours": 1})
        assert (answer.status, answer.body["data"]["__typename"]) == (200, "Query"), answer.text


@pytest.mark.parametrize(
    ("verb", "path", "body", "field", "message"),
    [
        ("PUT", "/v1/tenants/x", {"standing": "NOPE"}, "tenant.standing",
         'tenant.standing: "NOPE" is not one of STANDING_ACTIVE, STANDING_SUSPENDED'),
        ("GET", "/v1/tenants?standing=NOPE", None, "standing",
         'standing: "NOPE" is not one of STANDING_ACTIVE, STANDING_SUSPENDED'),
        ("GET", "/v1/tenants?page_size=many", None, "page_size", 'page_size: "many" is not a whole number of 32 bits'),
        ("PUT", "/v1/tenants/x", {"display_name": {"a": 1}}, "tenant.display_name",
         "tenant.display_name takes no object; send one plain value"),
        ("POST", "/v1/sessions", {"agents": ["A", {"x": 1}]}, "agents", "agents takes no object; send one plain value"),
        ("POST", "/v1/sessions", {"metadata": "x"}, "metadata", 'metadata: "x" is not an object'),
        ("POST", "/v1/sessions", {"topic": 'a "b": c', "strategy": 5}, "strategy", "strategy: 5 is not a string"),
        ("POST", "/v1/keys", {"display_name": "x", "expire_time": "soon"}, "expire_time",
         "expire_time is not a time, for example 2026-01-31T12:00:00Z"),
        ("POST", "/v1/sessions", [1], "body", "the body cannot be read: Root element must be a message."),
    ],
)  # fmt: skip
async def test_a_value_of_the_wrong_kind_is_refused_with_what_its_field_takes(
    edge: Edge, verb: str, path: str, body: Any, field: str, message: str
) -> None:
    answer = await refused(edge, verb, path, body)
    assert (violation(answer), answer.body["message"]) == (field, message)


async def test_a_body_that_is_no_json_is_said_to_be_none(edge: Edge) -> None:
    answer = await raw(edge, "/v1/sessions", b'{"topic": "say \\"hi\\"", oops')
    assert (answer.status, answer.reason, violation(answer)) == (400, "FIELD_INVALID", "body")
    assert answer.body["message"].startswith("the body cannot be read: ")


@pytest.mark.parametrize("method", WITH_BODY, ids=lambda method: method.full_name.partition(".v1.")[2])
async def test_every_methods_own_fields_arrive(edge: Edge, method: MethodDescriptor) -> None:
    chance = random.Random(method.full_name)
    for proto_names in (True, False):
        request = filled(method.input_type, chance)
        path, body = _as_rest(method, request, proto_names)
        verb = rule(method).WhichOneof("pattern")
        answer = await edge.bearer(verb.upper(), path, edge.token(), body)
        assert "there is no" not in answer.text
        if ".gateway." not in method.full_name:  # which answers for itself
            assert (answer.status, ECHO.asked[-1]) == (200, request), answer.text


def _as_rest(method: MethodDescriptor, request: Any, proto_names: bool) -> tuple[str, Any]:
    """Where and with what body the request is sent; it keeps only what a REST call can say."""
    found, whole = rule(method), type(request)()
    whole.CopyFrom(request)
    path = re.sub(
        r"\{([\w.]+)[^}]*\}",
        lambda match: _bound(request, whole, match[1]),
        getattr(found, found.WhichOneof("pattern")),
    )
    if found.body == "*":
        return path, json_format.MessageToDict(whole, preserving_proto_field_name=proto_names)
    first = {found.body, *(name.partition(".")[0] for name in re.findall(r"\{([\w.]+)", path))}
    for field in method.input_type.fields:
        if field.name not in first and not re.search(
            rf"\{{{field.name}\b", getattr(found, found.WhichOneof("pattern"))
        ):
            request.ClearField(field.name)
    return path, json_format.MessageToDict(getattr(whole, found.body), preserving_proto_field_name=proto_names)


def _bound(request: Any, body: Any, name: str) -> str:
    """Sets what the path says, which the body then must not."""
    *outer, last = name.split(".")
    for part in outer:
        request, body = getattr(request, part), getattr(body, part)
    setattr(request, last, "1")
    body.ClearField(last)
    return "1"


async def test_a_map_of_messages_is_looked_into() -> None:
    names = Names.of(contract.services())
    method = next(one for one in WITH_BODY if one.name == "ImportSession")
    body = {"document": {"events": [{"session_started": {"task_effects": {"any key": {"ours": 1}}}}]}}
    with pytest.raises(InvalidArgument) as caught:
        names.check(f"/{method.containing_service.full_name}/{method.name}", "", encoded(body))
    assert caught.value.field == "document.events[0].session_started.task_effects[any key].ours"
