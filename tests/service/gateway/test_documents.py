"""OpenAPI and the docs page, as the edge serves them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio
from google.protobuf import json_format, struct_pb2
from openapi_spec_validator import OpenAPIV30SpecValidator

from agentnet.tools.v1 import tool_pb2, tool_service_pb2, tool_service_pb2_grpc
from tests.support.edge import Edge, running_edge

WIDE = {"stranger": {"per_second": 1000, "burst": 10_000}}

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Tools(tool_service_pb2_grpc.ToolServiceServicer):
    """One tool."""

    async def ListTools(self, request, context):
        schema = {"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"]}
        parsed = json_format.ParseDict(schema, struct_pb2.Struct())
        tool = tool_pb2.Tool(name="adder", version="1.0.0", description="Adds.", input_schema=parsed)
        return tool_service_pb2.ListToolsResponse(tools=[tool])


def serve(server: grpc.aio.Server) -> None:
    tool_service_pb2_grpc.add_ToolServiceServicer_to_server(Tools(), server)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    async with running_edge(tmp_path_factory.mktemp("edge"), serve=serve, limits=WIDE) as running:
        yield running


async def test_the_document_is_valid_and_needs_no_credential(edge: Edge) -> None:
    answer = await edge.rest("GET", "/openapi.json")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    await asyncio.to_thread(OpenAPIV30SpecValidator(answer.body).validate)  # takes seconds in which Envoy wants answers
    assert (await edge.rest("GET", "/v1/openapi.json")).text == answer.text


async def test_it_says_what_the_contract_says(edge: Edge) -> None:
    document = (await edge.rest("GET", "/openapi.json")).body
    start = document["paths"]["/v1/sessions"]["post"]
    assert start["description"].startswith("Accepts a session and returns at once")
    assert start["x-agentnet-scope"] == "session:write"
    assert {"200", "400", "401", "403", "404", "429", "default"} <= set(start["responses"])
    session = document["components"]["schemas"]["orchestrator.v1.Session"]["properties"]
    assert session["cost_micros_usd"]["type"] == "string"
    assert session["start_time"]["format"] == "date-time"
    listed = document["paths"]["/v1/agents"]["get"]["parameters"]
    assert {one["name"] for one in listed} == {"page_size", "page_token", "name", "capability", "state", "order_by"}
    events = document["paths"]["/v1/sessions/{session_id}/events"]["get"]["responses"]["200"]["content"]
    assert list(events) == ["text/event-stream"]
    assert document["paths"]["/health"]["get"]["security"] == []
    assert not any("Settle" in text for text in re.findall(r'"operationId": "(\w+)"', str(document)))


async def test_every_path_of_the_document_is_routed(edge: Edge) -> None:
    """A path that Envoy does not know would be a 404 of its own, without gateway's reason."""
    document = (await edge.rest("GET", "/openapi.json")).body
    for path, verbs in document["paths"].items():
        for verb, operation in verbs.items():
            if operation.get("security") == []:
                continue
            body = {} if "requestBody" in operation else None
            answer = await edge.rest(verb.upper(), re.sub(r"\{[^}]+\}", "x1", path), body)
            # 429: so many strangers in a row. 303: a browser is sent to the sign-in.
            refused = (303, 429) if path.startswith("/dashboard") else (401, 429)
            assert (answer.status in refused, path) == (True, path)


async def test_every_path_names_its_version_but_those_that_others_fixed(edge: Edge) -> None:
    """Another version is not this one by chance: it is nowhere."""
    paths = (await edge.rest("GET", "/openapi.json")).body["paths"]
    unversioned = {path.split("/")[1] for path in paths if not path.startswith("/v1/")}
    protocols, probes = {".well-known", "a2a", "graphql", "mcp"}, {"health", "healthz", "livez", "readyz", "metrics"}
    assert unversioned == protocols | probes | {"docs", "openapi.json", "dashboard"}
    for path in ("/v2/agents", "/agents", "/v1/v1/agents"):
        assert (await edge.bearer("GET", path, edge.token())).status == 404


async def test_the_page_shows_every_operation_and_runs_no_script(edge: Edge) -> None:
    answer = await edge.rest("GET", "/docs")
    document = (await edge.rest("GET", "/openapi.json")).body
    assert answer.headers["content-type"].startswith("text/html")
    assert "script" not in answer.headers["content-security-policy"]
    assert "style-src 'sha256-" in answer.headers["content-security-policy"]
    assert all(f"<code>{path}</code>" in answer.text for path in document["paths"])
    assert "<script" not in answer.text


async def test_the_tenants_tools_have_a_document_too(edge: Edge) -> None:
    assert (await edge.rest("GET", "/v1/openapi/tools.json")).status == 401
    document = await edge.ok("GET", "/v1/openapi/tools.json", edge.token())
    await asyncio.to_thread(OpenAPIV30SpecValidator(document).validate)
    adder = document["components"]["schemas"]["adder@1.0.0"]
    assert adder["properties"]["arguments"]["required"] == ["a"]
