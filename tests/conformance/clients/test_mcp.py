"""The official MCP client, unchanged, against the edge."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import httpx2
import pytest
import pytest_asyncio
from google.protobuf import json_format, struct_pb2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from agentnet.inference.v1 import message_pb2, prompt_pb2, prompt_service_pb2, prompt_service_pb2_grpc
from agentnet.tools.v1 import tool_pb2, tool_service_pb2, tool_service_pb2_grpc
from services.gateway.facades.mcp_server import OVERRIDE
from shared import errors
from shared.errors import Reason
from tests.support.conformance_mcp import conformance_server
from tests.support.edge import Edge, running_edge
from tests.support.scripted_inference import ScriptedInference
from tests.support.scripted_orchestrator import serve_orchestrator

pytestmark = pytest.mark.asyncio(loop_scope="module")


class ToolNotFound(errors.NotFound):
    reason = Reason.ERROR_REASON_TOOL_NOT_FOUND


class CallApprovalRequired(errors.FailedPrecondition):
    reason = Reason.ERROR_REASON_CALL_APPROVAL_REQUIRED


class PromptNotFound(errors.NotFound):
    reason = Reason.ERROR_REASON_PROMPT_NOT_FOUND


class Tools(tool_service_pb2_grpc.ToolServiceServicer):
    """Adds."""

    async def ListTools(self, request, context):
        schema = json_format.ParseDict({"type": "object", "required": ["a"]}, struct_pb2.Struct())
        versions = ("1.9.0", "1.10.0")
        tools = [tool_pb2.Tool(name="adder", version=one, description=one, input_schema=schema) for one in versions]
        return tool_service_pb2.ListToolsResponse(tools=tools)

    async def InvokeTool(self, request, context):
        if request.name != "adder":
            raise ToolNotFound(f"no tool {request.name}")
        if request.arguments["a"] > 100 and request.override_token != "leave":
            raise CallApprovalRequired("calling adder waits for approval, by big", rule="big")
        result = json_format.ParseDict({"sum": request.arguments["a"] + 1}, struct_pb2.Value())
        return tool_service_pb2.InvokeToolResponse(finished=tool_service_pb2.ToolFinished(result=result))


class Prompts(prompt_service_pb2_grpc.PromptServiceServicer):
    """One, with a text and a list."""

    VERSION = prompt_pb2.PromptVersion(
        name="greet",
        comment="Greets people.",
        content=prompt_pb2.PromptContent(
            variables=[
                prompt_pb2.PromptVariable(name="tone", type=prompt_pb2.PROMPT_VARIABLE_TYPE_STRING),
                prompt_pb2.PromptVariable(
                    name="people", type=prompt_pb2.PROMPT_VARIABLE_TYPE_STRING_LIST,
                    default_value=struct_pb2.Value(string_value=""),
                ),
            ]
        ),
    )  # fmt: skip

    async def ListPrompts(self, request, context):
        return prompt_service_pb2.ListPromptsResponse(prompts=[self.VERSION])

    async def GetPrompt(self, request, context):
        if request.reference != "greet":
            raise PromptNotFound(f"no prompt {request.reference}")
        return prompt_service_pb2.GetPromptResponse(version=self.VERSION)

    async def Render(self, request, context):
        given = json_format.MessageToDict(request.variables)
        part = message_pb2.ContentPart(text=f"{given['tone']}: {', '.join(given['people'])}")
        said = message_pb2.Message(role=message_pb2.ROLE_ASSISTANT, content=[part])
        return prompt_service_pb2.RenderResponse(messages=[said])


def serve(server: grpc.aio.Server) -> None:
    ScriptedInference().serve(server)
    serve_orchestrator(server)
    prompt_service_pb2_grpc.add_PromptServiceServicer_to_server(Prompts(), server)
    tool_service_pb2_grpc.add_ToolServiceServicer_to_server(Tools(), server)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    async with running_edge(tmp_path_factory.mktemp("edge"), serve=serve) as running:
        yield running


@pytest.fixture(params=["legacy", "2026-07-28", "auto"])
def mode(request: pytest.FixtureRequest) -> str:
    """With the handshake (2025-11-25), without, or as the server says."""
    return str(request.param)


@asynccontextmanager
async def connected(edge: Edge, mode: str) -> AsyncIterator[Client]:
    headers = {"authorization": f"Bearer {edge.token()}"}
    async with (
        httpx2.AsyncClient(headers=headers) as http,
        Client(streamable_http_client(f"{edge.url}/mcp", http_client=http), mode=mode) as client,
    ):
        yield client


async def test_both_revisions_in_use_are_spoken(edge: Edge, mode: str) -> None:
    async with connected(edge, mode) as client:
        assert client.protocol_version == ("2025-11-25" if mode == "legacy" else "2026-07-28")
        if mode != "2026-07-28":
            assert client.server_info.name == "agentnet"
            assert client.server_capabilities.tools is not None


async def test_a_call_that_waits_for_leave_is_made_with_the_token_beside_its_arguments(edge: Edge, mode: str) -> None:
    async with connected(edge, mode) as session:
        waits = await session.call_tool("adder", {"a": 101})
        assert waits.is_error
        assert waits.content[0].text == "CALL_APPROVAL_REQUIRED: calling adder waits for approval, by big"
        made = await session.call_tool("adder", {"a": 101}, meta={OVERRIDE: "leave"})
        assert (made.structured_content, made.is_error) == ({"sum": 102.0}, False)


async def test_tools_and_agents_are_listed_and_called(edge: Edge, mode: str) -> None:
    async with connected(edge, mode) as session:
        listed = {tool.name: tool for tool in (await session.list_tools()).tools}
        assert set(listed) == {"adder", "agent_Athena"}
        assert listed["adder"].description == "1.10.0"
        assert listed["adder"].input_schema["required"] == ["a"]
        added = await session.call_tool("adder", {"a": 41})
        assert (added.structured_content, added.is_error) == ({"sum": 42.0}, False)
        asked = await session.call_tool("agent_Athena", {"prompt": "Say hello."})
        assert asked.content[0].text == "Say hello."


async def test_what_fails_is_a_result_that_says_why(edge: Edge, mode: str) -> None:
    async with connected(edge, mode) as session:
        for name, arguments, why in (
            ("nothing", {}, "TOOL_NOT_FOUND"), ("agent_Zeus", {"prompt": "x"}, "AGENT_NOT_FOUND"),
            ("agent_Athena", {}, "FIELD_INVALID"),
        ):  # fmt: skip
            found = await session.call_tool(name, arguments)
            assert found.is_error
            assert why in found.content[0].text


async def test_sessions_are_resources(edge: Edge, mode: str) -> None:
    async with connected(edge, mode) as session:
        await session.call_tool("agent_Athena", {"prompt": "Remember this."})
        (first, *_) = (await session.list_resources()).resources
        assert str(first.uri).startswith("agentnet://sessions/ses_")
        found = await session.read_resource(first.uri)
        assert json.loads(found.contents[0].text)["session"]["id"] == first.name
        with pytest.raises(MCPError):
            await session.read_resource("agentnet://nothing/x")


async def test_without_a_credential_nobody_is_served(edge: Edge) -> None:
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    assert (await edge.rest("POST", "/mcp", message)).status == 401
    assert (await edge.bearer("POST", "/mcp", edge.token("auditor"), message)).status == 403


async def test_the_transports_statuses_are_the_protocols(edge: Edge) -> None:
    token = edge.token()
    assert (await edge.bearer("GET", "/mcp", token)).status == 405
    assert (await edge.bearer("DELETE", "/mcp", token)).status == 405
    noted = await edge.bearer("POST", "/mcp", token, {"jsonrpc": "2.0", "method": "notifications/initialized"})
    assert (noted.status, noted.text) == (202, "")
    broken = await edge.bearer("POST", "/mcp", token, {"hello": 1})
    assert (broken.status, broken.body["error"]["code"]) == (400, -32602)
    unknown = await edge.bearer("POST", "/mcp", token, {"jsonrpc": "2.0", "id": 7, "method": "no/such"})
    assert (unknown.status, unknown.body["id"]) == (200, 7)
    assert "error" in unknown.body


async def test_the_meshs_prompts_are_listed_and_rendered(edge: Edge, mode: str) -> None:
    async with connected(edge, mode) as session:
        (listed,) = (await session.list_prompts()).prompts
        assert (listed.name, listed.description) == ("greet", "Greets people.")
        assert [(one.name, one.required) for one in listed.arguments] == [("tone", True), ("people", False)]
        found = await session.get_prompt("greet", {"tone": "warm", "people": '["Ada", "Bob"]'})
        assert (found.messages[0].role, found.messages[0].content.text) == ("assistant", "warm: Ada, Bob")
        for name, arguments, why in (("none", {}, "no prompt none"), ("greet", {"people": "["}, "must be JSON")):
            with pytest.raises(MCPError, match=why):
                await session.get_prompt(name, arguments)
        (template,) = (await session.list_resource_templates()).resource_templates
        assert template.uri_template == "agentnet://sessions/{id}"


async def test_what_a_tool_tells_on_its_way_comes_before_its_result(
    tmp_path_factory: pytest.TempPathFactory, mode: str
) -> None:
    heard: list[tuple[float, float | None]] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, total))

    async with running_edge(tmp_path_factory.mktemp("mcp"), serve=serve, mcp=conformance_server()) as edge:
        async with connected(edge, mode) as session:
            done = await session.call_tool("test_tool_with_progress", {}, progress_callback=hear)
    assert done.content[0].text == "done"
    assert heard == [(0, 100), (50, 100), (100, 100)]


async def test_a_page_of_a_strange_origin_is_refused(edge: Edge) -> None:
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    token = f"Bearer {edge.token()}"
    strange = await edge.rest("POST", "/mcp", message, authorization=token, origin="http://evil.example")
    assert strange.status == 403
    ours = await edge.rest("POST", "/mcp", message, authorization=token, origin="http://localhost:3000")
    assert ours.status == 200
