"""Background responses that call tools of the mesh, by OpenAI's official client, unchanged, against the edge."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import openai
import pytest
import pytest_asyncio
from google.protobuf import json_format, struct_pb2

from agentnet.tools.v1 import tool_pb2, tool_service_pb2, tool_service_pb2_grpc
from tests.support.edge import Edge, memory_stores, running_edge
from tests.support.scripted_inference import ScriptedInference
from tests.support.scripted_orchestrator import ScriptedSessions, serve_orchestrator

pytestmark = pytest.mark.asyncio(loop_scope="module")
FUNCTION = {"type": "function", "name": "adder_here", "parameters": {"type": "object", "properties": {}}}


class Tools(tool_service_pb2_grpc.ToolServiceServicer):
    """`adder` adds one, and while it is `held` does not come to an end."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.held = asyncio.Event()
        self.begun = asyncio.Event()
        self.hold = False

    async def ListTools(self, request: Any, context: Any) -> Any:
        return tool_service_pb2.ListToolsResponse(tools=[tool_pb2.Tool(name="adder", version="1.0.0")])

    async def InvokeTool(self, request: Any, context: Any) -> Any:
        self.asked.append(request.request_id)
        self.begun.set()
        if self.hold:
            await self.held.wait()
        result = json_format.ParseDict(request.arguments["a"] + 1, struct_pb2.Value())
        return tool_service_pb2.InvokeToolResponse(finished=tool_service_pb2.ToolFinished(result=result))


@pytest.fixture
def tools() -> Tools:
    return Tools()


@pytest.fixture
def inference() -> ScriptedInference:
    return ScriptedInference()


@pytest.fixture
def orchestrator() -> list[ScriptedSessions]:
    """The one there is, once the edge runs."""
    return []


@pytest.fixture
def serve(inference: ScriptedInference, tools: Tools, orchestrator: list[ScriptedSessions]) -> Any:
    def all_of_it(server: grpc.aio.Server) -> None:
        inference.serve(server)
        orchestrator.append(serve_orchestrator(server))
        tool_service_pb2_grpc.add_ToolServiceServicer_to_server(tools, server)

    return all_of_it


@pytest_asyncio.fixture(loop_scope="module")
async def edge(serve: Any, tmp_path: Any) -> AsyncIterator[Edge]:
    async with running_edge(tmp_path, serve=serve) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def client(edge: Edge) -> AsyncIterator[openai.AsyncOpenAI]:
    async with connected(edge) as made:
        yield made


def connected(edge: Edge, subject: str = "ada") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{edge.url}/v1", api_key=edge.token(subject=subject), max_retries=0)


def mesh(*allowed: str, asks: Any = "never") -> Any:
    return {"type": "mcp", "server_label": "mesh", "allowed_tools": list(allowed), "require_approval": asks}


async def ended(client: openai.AsyncOpenAI, name: str) -> Any:
    for _ in range(200):
        found = await client.responses.retrieve(name)
        if found.status not in {"queued", "in_progress"}:
            return found
        await asyncio.sleep(0.02)
    raise TimeoutError(name)


def same(found: Any) -> Any:
    """Without what names the one response."""
    return json.loads(json.dumps(found.to_dict()["output"]).replace(found.id.removeprefix("resp_"), ""))


async def test_tools_of_the_mesh_are_run_while_nobody_waits(
    client: openai.AsyncOpenAI, inference: ScriptedInference, tools: Tools
) -> None:
    started = await client.responses.create(model="mesh", input="41?", tools=[mesh("adder")], background=True)
    assert (started.status, started.background, started.output) == ("queued", True, [])
    found = await ended(client, started.id)
    waited = await client.responses.create(model="mesh", input="41?", tools=[mesh("adder")])
    assert (found.status, found.output_text) == ("completed", "It is 42.0.")
    assert same(found) == same(waited)
    assert found.usage == waited.usage
    first = started.id.replace("resp_", "gen_")
    assert (list(inference.submitted), tools.asked[0]) == ([first, f"{first}-1"], f"{first}-call0")
    more = await client.responses.create(model="words", input="Again?", previous_response_id=found.id)
    assert more.status == "completed"


async def test_its_events_come_again_after_any_number(client: openai.AsyncOpenAI, tools: Tools) -> None:
    given = {"model": "mesh", "input": "x", "tools": [mesh("adder")]}
    stream = await client.responses.create(**given, background=True, stream=True)
    events = [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    waited = [event.type async for event in await client.responses.create(**given, stream=True)]
    assert [event.type for event in events] == [waited[0], "response.queued", *waited[1:]]
    name = events[0].response.id
    assert (await ended(client, name)).output == events[-1].response.output
    for after in range(len(events) - 1):
        again = await client.responses.retrieve(name, stream=True, starting_after=after)
        assert [event.to_dict() async for event in again] == [event.to_dict() for event in events[after + 1 :]]
    assert len(tools.asked) == 2


async def test_it_goes_on_when_its_gateway_is_gone(
    inference: ScriptedInference, tools: Tools, serve: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stores, tools.hold = memory_stores(), True
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    async with running_edge(one, serve=serve, stores=stores) as edge, connected(edge) as client:
        stream = await client.responses.create(
            model="mesh", input="x", tools=[mesh("adder")], background=True, stream=True
        )
        seen = [await anext(stream) for _ in range(5)]
        await tools.begun.wait()
        await stream.close()
    tools.held.set()
    async with running_edge(two, serve=serve, stores=stores) as edge, connected(edge) as client:
        found = await ended(client, seen[0].response.id)
        assert (found.status, found.output_text) == ("completed", "It is 42.0.")
        rest = [event async for event in await client.responses.retrieve(found.id, stream=True, starting_after=4)]
    assert [event.sequence_number for event in (*seen, *rest)] == list(range(5 + len(rest)))
    assert rest[-1].response.output == found.output
    assert len(tools.asked) == 2
    assert len(set(tools.asked)) == 1
    assert len(inference.submitted) == 2


async def test_it_is_called_off_while_a_tool_runs(client: openai.AsyncOpenAI, tools: Tools) -> None:
    tools.hold = True
    stream = await client.responses.create(model="mesh", input="x", tools=[mesh("adder")], background=True, stream=True)
    name = (await anext(stream)).response.id
    await tools.begun.wait()
    assert (await client.responses.retrieve(name)).status == "in_progress"
    cancelled = await client.responses.cancel(name)
    assert (cancelled.status, await client.responses.cancel(name)) == ("cancelled", cancelled)
    assert [event.type async for event in stream][-1] == "response.failed"
    tools.held.set()
    assert await client.responses.retrieve(name) == cancelled


async def test_an_agent_of_the_mesh_is_a_tool_too_and_ends_with_its_response(
    client: openai.AsyncOpenAI, orchestrator: list[ScriptedSessions]
) -> None:
    given: Any = {"model": "mesh", "tools": [mesh("agent_Athena")], "background": True}
    started = await client.responses.create(**given, input="Say hello.")
    assert (await ended(client, started.id)).output_text == "It is Say hello.."
    assert orchestrator[0].named == {f"{started.id.replace('resp_', 'gen_')}-call0": "ses_1"}
    waits = await client.responses.create(**given, input="Wait.")
    while "ses_2" not in orchestrator[0].topics:
        await asyncio.sleep(0.01)
    await client.responses.cancel(waits.id)
    async with asyncio.timeout(5):
        await orchestrator[0].cancelled.wait()


async def test_a_function_of_the_callers_is_the_callers_in_the_background_too(client: openai.AsyncOpenAI) -> None:
    for offered in ([FUNCTION], [FUNCTION, mesh("adder")]):
        given: Any = {"model": "mesh", "background": True, "tools": offered}
        started = await client.responses.create(**given, input="x")
        found = await ended(client, started.id)
        call = found.output[-1]
        assert (found.status, call.type, call.name) == ("completed", "function_call", "adder_here")
        answer = {"type": "function_call_output", "call_id": call.call_id, "output": "forty-two"}
        told = await client.responses.create(**given, previous_response_id=found.id, input=[answer])
        assert (await ended(client, told.id)).output_text == "It is forty-two."


async def test_who_wants_to_be_asked_is_and_what_is_allowed_runs_first(client: openai.AsyncOpenAI) -> None:
    asking = mesh("adder", asks="always")
    started = await client.responses.create(model="mesh", input="x", tools=[asking], background=True)
    asked = await ended(client, started.id)
    wish = asked.output[-1]
    assert (asked.status, wish.type, wish.name) == ("completed", "mcp_approval_request", "adder")
    answer: Any = {"type": "mcp_approval_response", "approval_request_id": wish.id, "approve": True}
    allowed = await client.responses.create(
        model="mesh", input=[answer], previous_response_id=asked.id, tools=[asking], background=True
    )
    found = await ended(client, allowed.id)
    call = next(item for item in found.output if item.type == "mcp_call")
    assert (call.output, call.approval_request_id, found.output_text) == ("42.0", wish.id, "It is 42.0.")


async def test_who_is_shut_out_meanwhile_is_not_worked_for(edge: Edge, tools: Tools) -> None:
    tools.hold = True
    async with connected(edge, "mallory") as client, connected(edge) as admin:
        started = await client.responses.create(model="mesh", input="x", tools=[mesh("adder")], background=True)
        await tools.begun.wait()
        await edge.ok("PUT", "/v1/users/mallory", edge.token(), {"standing": "STANDING_SUSPENDED"})
        tools.held.set()
        found = await ended(admin, started.id)
    assert found.status == "failed"
    assert found.error
    assert "suspended" in found.error.message
