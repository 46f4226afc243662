"""OpenAI's responses by its official Python client, unchanged, against the edge."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import openai
import pytest
import pytest_asyncio
from google.protobuf import json_format, struct_pb2

from agentnet.tools.v1 import tool_pb2, tool_service_pb2, tool_service_pb2_grpc
from shared import errors
from shared.errors import Reason
from tests.support.edge import Edge, memory_stores, running_edge
from tests.support.scripted_inference import WORDS, ScriptedInference
from tests.support.scripted_orchestrator import serve_orchestrator

pytestmark = pytest.mark.asyncio(loop_scope="module")
TEXT = "".join(WORDS)


class Broken(errors.FailedPrecondition):
    reason = Reason.ERROR_REASON_TOOL_FAILED


class Tools(tool_service_pb2_grpc.ToolServiceServicer):
    """`adder` adds one, `breaker` fails."""

    async def ListTools(self, request: Any, context: Any) -> Any:
        named = [tool_pb2.Tool(name=name, version="1.0.0", description=name) for name in ("adder", "breaker")]
        return tool_service_pb2.ListToolsResponse(tools=named)

    async def InvokeTool(self, request: Any, context: Any) -> Any:
        if request.name == "breaker":
            raise Broken("it broke")
        result = json_format.ParseDict(request.arguments["a"] + 1, struct_pb2.Value())
        return tool_service_pb2.InvokeToolResponse(finished=tool_service_pb2.ToolFinished(result=result))


@pytest.fixture(scope="module")
def inference() -> ScriptedInference:
    return ScriptedInference()


@pytest.fixture(scope="module")
def serve(inference: ScriptedInference) -> Any:
    def all_of_it(server: grpc.aio.Server) -> None:
        inference.serve(server)
        serve_orchestrator(server)
        tool_service_pb2_grpc.add_ToolServiceServicer_to_server(Tools(), server)

    return all_of_it


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(serve: Any, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    async with running_edge(tmp_path_factory.mktemp("edge"), serve=serve) as running:
        yield running


def connected(edge: Edge, tenant: str = "acme") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{edge.url}/v1", api_key=edge.token(tenant=tenant), max_retries=0)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(edge: Edge) -> AsyncIterator[openai.AsyncOpenAI]:
    async with connected(edge) as made:
        yield made


async def test_a_response_comes_whole_and_is_found_again(client: openai.AsyncOpenAI) -> None:
    found = await client.responses.create(model="words", input="Say hello.", instructions="Be kind.")
    assert (found.output_text, found.status) == (TEXT, "completed")
    assert found.usage
    assert (found.usage.input_tokens, found.usage.output_tokens) == (7, 4)
    again = await client.responses.retrieve(found.id)
    assert (again.output_text, again.id, again.created_at) == (TEXT, found.id, found.created_at)


async def test_a_response_streams_and_resumes_after_any_event(client: openai.AsyncOpenAI) -> None:
    stream = await client.responses.create(model="words", input=[{"role": "user", "content": "x"}], stream=True)
    events = [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == TEXT
    assert [events[0].type, events[-1].type] == ["response.created", "response.completed"]
    response_id = events[0].response.id
    for after in (0, 4, len(events) - 2):
        resumed = await client.responses.retrieve(response_id, stream=True, starting_after=after)
        assert [event.to_dict() async for event in resumed] == [event.to_dict() for event in events[after + 1 :]]


async def test_an_image_and_a_schema_of_a_response_reach_the_model(
    client: openai.AsyncOpenAI, inference: ScriptedInference
) -> None:
    schema = {"type": "object", "properties": {"answer": {"type": "string"}}}
    content = [
        {"type": "input_text", "text": "What is it?"},
        {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0="},
    ]
    form = {"format": {"type": "json_schema", "name": "a", "schema": schema, "strict": True}}
    await client.responses.create(model="words", input=[{"role": "user", "content": content}], text=form)
    asked = inference.asked[-1]
    assert asked.response_format.json_schema["properties"]["answer"]["type"] == "string"
    assert asked.messages[0].content[1].image.media_type == "image/png"
    with pytest.raises(openai.BadRequestError, match=r"text\.format"):
        await client.responses.create(model="words", input="x", text={"format": {"type": "grammar"}})


FUNCTION = {
    "type": "function",
    "name": "weather",
    "description": "Of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": True,
}


async def test_functions_of_a_response_make_the_whole_round(
    client: openai.AsyncOpenAI, inference: ScriptedInference
) -> None:
    first = await client.responses.create(
        model="tools", input="Where is it warm?", tools=[FUNCTION], tool_choice={"type": "function", "name": "weather"}
    )
    asked = inference.asked[-1]
    assert (asked.tools[0].name, asked.tool_choice.name) == ("weather", "weather")
    assert asked.tools[0].input_schema["properties"]["city"]["type"] == "string"
    calls = [item for item in first.output if item.type == "function_call"]
    assert [(call.call_id, call.name, json.loads(call.arguments)["city"]) for call in calls] == [
        ("call_0", "weather", "Oslo"), ("call_1", "weather", "Rome"),
    ]  # fmt: skip
    answers = [
        {"type": "function_call_output", "call_id": call.call_id, "output": f"{place} degrees"}
        for place, call in enumerate(calls)
    ]
    second = await client.responses.create(
        model="words", tools=[FUNCTION], reasoning={"effort": "low"},
        input=[{"role": "user", "content": "Where is it warm?"}, *first.output, *answers],
    )  # fmt: skip
    assert second.output_text == TEXT
    _, assistant, *results = inference.asked[-1].messages
    assert [part.tool_call.id for part in assistant.content] == ["", "call_0", "call_1"]
    assert [(one.content[0].tool_result.tool_call_id, one.content[0].tool_result.content) for one in results] == [
        ("call_0", "0 degrees"), ("call_1", "1 degrees"),
    ]  # fmt: skip
    with pytest.raises(openai.BadRequestError, match=r"tools\[0\]\.type"):
        await client.responses.create(model="words", input="x", tools=[{"type": "web_search"}])


async def test_functions_of_a_response_stream_and_resume(client: openai.AsyncOpenAI) -> None:
    stream = await client.responses.create(model="tools", input="x", tools=[FUNCTION], stream=True)
    events = [event async for event in stream]
    done = [event.item for event in events if event.type == "response.output_item.done"]
    assert [item.type for item in done] == ["message", "function_call", "function_call"]
    assert [item.to_dict() for item in done] == [item.to_dict() for item in events[-1].response.output]
    written = [event.arguments for event in events if event.type == "response.function_call_arguments.done"]
    assert written == [call.arguments for call in done[1:]]
    assert events[-1].type == "response.completed"
    resumed = await client.responses.retrieve(events[0].response.id, stream=True, starting_after=8)
    assert [event.to_dict() async for event in resumed] == [event.to_dict() for event in events[9:]]
    async with client.responses.stream(model="tools", input="x", tools=[FUNCTION]) as helped:
        final = await helped.get_final_response()
    assert [item.type for item in final.output] == ["message", "function_call", "function_call"]


async def test_a_response_goes_on_in_the_background(client: openai.AsyncOpenAI, inference: ScriptedInference) -> None:
    inference.busy = True
    started = await client.responses.create(model="slow", input="x", background=True)
    assert (started.status, started.background) == ("queued", True)
    assert (await client.responses.retrieve(started.id)).status == "queued"
    inference.busy = False
    assert (await client.responses.retrieve(started.id)).status == "in_progress"
    cancelled = await client.responses.cancel(started.id)
    assert cancelled.status == "cancelled"
    assert inference.cancelled == [started.id.replace("resp_", "gen_")]
    assert await client.responses.cancel(started.id) == cancelled
    assert await client.responses.retrieve(started.id) == cancelled
    with pytest.raises(openai.NotFoundError, match="model_not_found"):
        await client.responses.create(model="nothing", input="x", background=True)


async def test_a_response_is_followed_by_number_over_a_new_gateway(
    inference: ScriptedInference, serve: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stores = memory_stores()
    async with (
        running_edge(tmp_path_factory.mktemp("one"), serve=serve, stores=stores) as edge,
        connected(edge) as client,
    ):
        stream = await client.responses.create(model="words", input="x", background=True, stream=True)
        seen = [await anext(stream) for _ in range(5)]
        await stream.close()
    kinds = [event.type for event in seen]
    assert kinds[:3] == ["response.created", "response.queued", "response.in_progress"]
    async with (
        running_edge(tmp_path_factory.mktemp("two"), serve=serve, stores=stores) as edge,
        connected(edge) as client,
    ):
        name = seen[0].response.id
        rest = [event async for event in await client.responses.retrieve(name, stream=True, starting_after=4)]
        assert [event.sequence_number for event in rest] == list(range(5, 5 + len(rest)))
        assert rest[-1].type == "response.completed"
        assert rest[-1].response.output_text == TEXT
        assert await client.responses.retrieve(name) == rest[-1].response


async def test_what_a_queue_made_is_there_when_its_events_are_gone(client: openai.AsyncOpenAI) -> None:
    started = await client.responses.create(model="gone", input="x", background=True)
    found = await client.responses.retrieve(started.id)
    assert (found.status, found.output_text) == ("completed", TEXT)
    assert found.usage
    assert found.usage.output_tokens == len(WORDS)
    unread = await client.responses.create(model="gone", input="x", background=True)
    with pytest.raises(openai.ConflictError, match="read it again from its start"):
        await client.responses.retrieve(unread.id, stream=True, starting_after=5)
    events = [event async for event in await client.responses.retrieve(unread.id, stream=True)]
    assert events[-1].response.output_text == TEXT


async def test_an_agent_goes_on_in_the_background_as_a_session(client: openai.AsyncOpenAI) -> None:
    started = await client.responses.create(model="agent:Athena", input="Say hello.", background=True)
    assert started.status == "queued"
    found = await client.responses.retrieve(started.id)
    assert (found.status, found.output_text) == ("completed", "Say hello.")


async def test_a_response_goes_on_from_the_one_before(
    client: openai.AsyncOpenAI, inference: ScriptedInference, edge: Edge
) -> None:
    first = await client.responses.create(
        model="words", input="I am Ada.", instructions="Be kind.", metadata={"a": "b"}
    )
    assert (first.metadata, first.instructions, first.store) == ({"a": "b"}, "Be kind.", True)
    second = await client.responses.create(
        model="tools", input="Who am I?", previous_response_id=first.id, tools=[FUNCTION]
    )
    assert second.previous_response_id == first.id
    told = [[part.text for part in message.content] for message in inference.asked[-1].messages]
    assert told == [["I am Ada."], [TEXT], ["Who am I?"]]
    answers = [
        {"type": "function_call_output", "call_id": item.call_id, "output": "warm"}
        for item in second.output if item.type == "function_call"
    ]  # fmt: skip
    await client.responses.create(model="words", input=answers, previous_response_id=second.id)
    assert [len(message.content) for message in inference.asked[-1].messages] == [1, 1, 1, 3, 1, 1]
    for name in ("resp_none", second.id):
        async with connected(edge, "globex" if name == second.id else "acme") as stranger:
            with pytest.raises(openai.BadRequestError) as raised:
                await stranger.responses.create(model="words", input="x", previous_response_id=name)
        assert raised.value.body == {
            "message": f"Previous response with id '{name}' not found.", "type": "invalid_request_error",
            "param": "previous_response_id", "code": "previous_response_not_found",
        }  # fmt: skip


async def test_what_is_kept_is_listed_forgotten_and_told_in_openais_words(client: openai.AsyncOpenAI) -> None:
    said = [{"role": "user", "content": text} for text in ("one", "two", "three")]
    made = await client.responses.create(model="words", input=said)
    listed = [item async for item in client.responses.input_items.list(made.id, limit=2, order="asc")]
    assert [item.content for item in listed] == ["one", "two", "three"]
    assert [item.content async for item in client.responses.input_items.list(made.id)] == ["three", "two", "one"]
    with pytest.raises(openai.BadRequestError) as refused:
        await client.responses.cancel(made.id)
    assert (refused.value.body["message"], refused.value.code) == ("Cannot cancel a synchronous response.", None)
    await client.responses.delete(made.id)
    unkept = await client.responses.create(model="words", input="x", store=False)
    for name in (made.id, unkept.id):
        with pytest.raises(openai.NotFoundError) as raised:
            await client.responses.retrieve(name)
        assert raised.value.body == {
            "message": f"Response with id '{name}' not found.", "type": "invalid_request_error", "param": None, "code": None,
        }  # fmt: skip
    with pytest.raises(openai.BadRequestError, match="Background mode requires store=true"):
        await client.responses.create(model="words", input="x", background=True, store=False)


def mesh(*allowed: str, asks: Any = "never") -> Any:
    return {"type": "mcp", "server_label": "mesh", "allowed_tools": list(allowed), "require_approval": asks}


async def test_tools_of_the_mesh_are_run_for_the_model(
    client: openai.AsyncOpenAI, inference: ScriptedInference
) -> None:
    found = await client.responses.create(model="mesh", input="41 and one?", tools=[mesh("adder")])
    listed, call, message = found.output
    assert [tool.name for tool in listed.tools] == ["adder"]
    assert (call.type, call.name, call.output, call.error, call.server_label) == (
        "mcp_call",
        "adder",
        "42.0",
        None,
        "mesh",
    )
    assert (message.type, found.output_text) == ("message", "It is 42.0.")
    assert found.usage
    assert (found.usage.input_tokens, found.usage.output_tokens) == (10, 6)
    assert inference.asked[-1].generation_id == f"{inference.asked[-2].generation_id}-1"
    broken = await client.responses.create(model="mesh", input="x", tools=[mesh("breaker")])
    assert broken.output[1].status == "failed"
    assert broken.output[1].error["content"][0]["text"] == "TOOL_FAILED: it broke"
    await client.responses.create(model="words", input="Again?", previous_response_id=found.id)
    kinds = [[part.WhichOneof("part") for part in one.content] for one in inference.asked[-1].messages]
    assert kinds == [["text"], ["tool_call"], ["tool_result"], ["text"], ["text"]]


async def test_tools_of_the_mesh_stream_as_openais_events(client: openai.AsyncOpenAI) -> None:
    stream = await client.responses.create(model="mesh", input="x", tools=[mesh("adder")], stream=True)
    events = [event async for event in stream]
    assert [event.type.removeprefix("response.") for event in events] == [
        "created", "in_progress",
        "output_item.added", "mcp_list_tools.in_progress", "mcp_list_tools.completed", "output_item.done",
        "output_item.added", "mcp_call.in_progress", "mcp_call_arguments.delta", "mcp_call_arguments.done",
        "mcp_call.completed", "output_item.done",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.done", "content_part.done",
        "output_item.done", "completed",
    ]  # fmt: skip
    done = [event.item for event in events if event.type == "response.output_item.done"]
    assert done == events[-1].response.output
    with pytest.raises(openai.BadRequestError, match="cannot be streamed again"):
        await client.responses.retrieve(events[-1].response.id, stream=True)


async def test_who_wants_to_be_asked_about_a_tool_is(client: openai.AsyncOpenAI, inference: ScriptedInference) -> None:
    asked = await client.responses.create(model="mesh", input="x", tools=[mesh("adder", asks="always")])
    wish = asked.output[-1]
    assert (wish.type, wish.name, json.loads(wish.arguments)) == ("mcp_approval_request", "adder", {"a": 41})
    answer = {"type": "mcp_approval_response", "approval_request_id": wish.id, "approve": True}
    allowed = await client.responses.create(
        model="mesh", input=[answer], previous_response_id=asked.id, tools=[mesh("adder", asks="always")]
    )
    call = next(item for item in allowed.output if item.type == "mcp_call")
    assert (call.output, call.approval_request_id, allowed.output_text) == ("42.0", wish.id, "It is 42.0.")
    declined = await client.responses.create(
        model="mesh", input=[{**answer, "approve": False}], previous_response_id=asked.id, tools=[mesh("adder")]
    )
    assert declined.output_text == "It is The caller declined this call.."
    with pytest.raises(openai.BadRequestError, match="No approval request with id 'none' found"):
        await client.responses.create(model="mesh", input=[{**answer, "approval_request_id": "none"}])


async def test_what_the_mesh_has_not_is_refused_by_name(client: openai.AsyncOpenAI) -> None:
    for tools, why in (
        ([mesh("nothing")], "nothing, which is no tool of this mesh"),
        ([{**mesh(), "server_url": "https://evil.example/mcp"}], r"tools\[0\]\.server_url"),
        ([mesh(), mesh()], "may name the mesh once"), ([mesh(asks="perhaps")], "must be always or never"),
        ([mesh("adder"), {**FUNCTION, "name": "adder"}], "name adder twice"),
    ):  # fmt: skip
        with pytest.raises(openai.BadRequestError, match=why):
            await client.responses.create(model="mesh", input="x", tools=tools)
    with pytest.raises(openai.BadRequestError, match="are an agent's own"):
        await client.responses.create(model="agent:Athena", input="x", tools=[mesh()], background=True)


async def test_what_breaks_while_it_is_read_has_not_failed(
    client: openai.AsyncOpenAI, inference: ScriptedInference
) -> None:
    """`broken` breaks off, and the queue is to run it again."""
    stream = await client.responses.create(model="broken", input="x", background=True, stream=True)
    name = (await anext(stream)).response.id
    with pytest.raises(openai.APIError, match="broke off"):
        _ = [event async for event in stream]
    assert (await client.responses.retrieve(name)).status == "in_progress"
    inference.again[name.replace("resp_", "gen_")] = "words"
    with pytest.raises(openai.ConflictError, match="begun anew"):
        await client.responses.retrieve(name, stream=True, starting_after=5)
    events = [event async for event in await client.responses.retrieve(name, stream=True)]
    assert events[-1].response.output_text == TEXT
