"""OpenAI's official Python client, unchanged, against the edge."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import aiohttp
import openai
import pytest
import pytest_asyncio

from agentnet.inference.v1 import message_pb2
from tests.support.edge import Edge
from tests.support.scripted_inference import WORDS, ScriptedInference

# The client imports its parts at first use, for seconds in which this loop would serve nobody: here is better.
with openai.OpenAI(api_key="none") as _early:
    _PARTS = (_early.chat.completions, _early.responses, _early.embeddings, _early.models)

pytestmark = pytest.mark.asyncio(loop_scope="module")
ASK = [{"role": "user", "content": "Say hello."}]
TEXT = "".join(WORDS)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(edge: Edge) -> AsyncIterator[openai.AsyncOpenAI]:
    made = await edge.ok("POST", "/v1/keys", edge.token(), {"display_name": "sdk", "roles": ["tenant_user"]})
    async with openai.AsyncOpenAI(base_url=f"{edge.url}/v1", api_key=made["secret"], max_retries=0) as connected:
        yield connected


async def test_a_chat_completion_comes_whole(client: openai.AsyncOpenAI, inference: ScriptedInference) -> None:
    messages = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "Say "}, {"type": "text", "text": "hello."}]},
    ]
    found = await client.chat.completions.create(
        model="words", messages=messages, temperature=0.5, max_completion_tokens=9, stop="END", seed=4
    )
    assert found.choices[0].message.content == TEXT
    assert (found.choices[0].finish_reason, found.choices[0].message.role) == ("stop", "assistant")
    assert (found.object, found.model, found.created) == ("chat.completion", "words", 1_800_000_000)
    assert found.id.startswith("chatcmpl-")
    assert found.usage
    assert (found.usage.prompt_tokens, found.usage.completion_tokens, found.usage.total_tokens) == (7, 4, 11)
    assert found.usage.prompt_tokens_details
    assert found.usage.prompt_tokens_details.cached_tokens == 2
    asked = inference.asked[-1]
    assert [[part.text for part in message.content] for message in asked.messages] == [["Be kind."], ["Say ", "hello."]]
    assert (asked.max_output_tokens, asked.sampling.temperature, asked.sampling.seed) == (9, 0.5, 4)
    assert list(asked.sampling.stop) == ["END"]
    assert not asked.sampling.HasField("top_p")


async def test_a_chat_completion_streams(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model="words", messages=ASK, stream=True)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(chunk.choices[0].delta.role is None for chunk in chunks[1:])
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert all(chunk.usage is None for chunk in chunks)


async def test_usage_streams_when_it_is_asked_for(client: openai.AsyncOpenAI) -> None:
    options = {"include_usage": True}
    stream = await client.chat.completions.create(model="words", messages=ASK, stream=True, stream_options=options)
    *before, last = [chunk async for chunk in stream]
    assert last.choices == []
    assert last.usage
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (7, 4)
    assert all(chunk.usage is None and chunk.choices for chunk in before)


async def test_the_bytes_of_a_stream_are_openais(edge: Edge) -> None:
    headers = {"authorization": f"Bearer {edge.token()}"}
    body = {"model": "words", "messages": ASK, "stream": True}
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.post(f"{edge.url}/v1/chat/completions", json=body) as answer:
            assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
            text = await answer.text()
    *events, done, rest = text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    for event in events:
        chunk = json.loads(event.removeprefix("data: "))
        assert isinstance(chunk["created"], int)
        assert chunk["object"] == "chat.completion.chunk"
    assert '"delta":{"content":"wörld"}' in text


async def test_an_agent_is_a_model(client: openai.AsyncOpenAI) -> None:
    found = await client.chat.completions.create(model="agent:Athena", messages=ASK)
    assert (found.choices[0].message.content, found.model) == ("Say hello.", "agent:Athena@1.0.0")
    assert found.usage
    assert found.usage.total_tokens == 13
    longer = [*ASK, {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Again."}]
    stream = await client.chat.completions.create(model="agent:Athena@1.0.0", messages=longer, stream=True)
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text.endswith("User: Say hello.\n\nYou: Hello.\n\nUser: Again.")


async def test_models_and_agents_are_listed_and_found(client: openai.AsyncOpenAI) -> None:
    listed = {model.id: model async for model in client.models.list()}
    assert set(listed) == {"words", "agent:Athena", "agent:Athena@1.0.0"}
    assert listed["agent:Athena"].created == 1_800_000_000
    assert (await client.models.retrieve("words")).owned_by == "script"
    with pytest.raises(openai.NotFoundError) as raised:
        await client.models.retrieve("nothing")
    assert raised.value.code == "model_not_found"


async def test_embeddings_come_as_floats_whichever_way_they_travel(client: openai.AsyncOpenAI, edge: Edge) -> None:
    found = await client.embeddings.create(model="minilm", input=["a", "four"])
    assert [one.embedding for one in found.data] == [[0.5, -0.25, 1.0], [0.5, -0.25, 4.0]]
    assert [one.index for one in found.data] == [0, 1]
    assert found.usage.total_tokens == 6
    single = await client.embeddings.create(model="minilm", input="a", encoding_format="float")
    assert single.data[0].embedding == [0.5, -0.25, 1.0]
    raw = await edge.ok(
        "POST", "/v1/embeddings", edge.token(), {"model": "m", "input": "a", "encoding_format": "base64"}
    )
    assert isinstance(raw["data"][0]["embedding"], str)


async def test_errors_have_openais_status_and_shape(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        await client.chat.completions.create(model="nothing", messages=ASK)
    assert (missing.value.code, missing.value.param, missing.value.type) == (
        "model_not_found", "model", "invalid_request_error",
    )  # fmt: skip
    assert missing.value.body == {
        "message": "no model nothing", "type": "invalid_request_error", "param": "model", "code": "model_not_found",
    }  # fmt: skip
    with pytest.raises(openai.RateLimitError) as poor:
        await client.chat.completions.create(model="poor", messages=ASK, stream=True)
    assert (poor.value.code, poor.value.type) == ("insufficient_quota", "insufficient_quota")
    with pytest.raises(openai.BadRequestError) as invalid:
        await client.chat.completions.create(model="words", messages=[])
    assert invalid.value.param == "messages"
    with pytest.raises(openai.BadRequestError) as many:
        await client.chat.completions.create(model="words", messages=ASK, n=2)
    assert many.value.param == "n"


async def test_a_refusal_at_the_door_has_openais_shape_too(edge: Edge) -> None:
    async with openai.AsyncOpenAI(base_url=f"{edge.url}/v1", api_key="sk-nothing", max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError) as raised:
            await stranger.chat.completions.create(model="words", messages=ASK)
    assert (raised.value.code, raised.value.type) == ("invalid_api_key", "authentication_error")
    auditor = edge.token("auditor")
    async with openai.AsyncOpenAI(base_url=f"{edge.url}/v1", api_key=auditor, max_retries=0) as reader:
        with pytest.raises(openai.PermissionDeniedError):
            await reader.chat.completions.create(model="words", messages=ASK)


async def test_a_models_limit_tells_when_to_come_back(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        await client.chat.completions.create(model="words-limited", messages=ASK)
    with pytest.raises(openai.RateLimitError) as raised:
        await client.chat.completions.create(model="words-limited", messages=ASK)
    assert raised.value.code == "rate_limit_exceeded"
    assert 15 <= int(raised.value.response.headers["retry-after"]) <= 20


async def test_a_stream_that_breaks_says_so_and_is_not_done(client: openai.AsyncOpenAI, edge: Edge) -> None:
    stream = await client.chat.completions.create(model="broken", messages=ASK, stream=True)
    said = ""
    with pytest.raises(openai.APIError) as raised:
        async for chunk in stream:
            said += chunk.choices[0].delta.content or ""
    assert said == "Hello"
    assert "ended in the middle" in str(raised.value)
    answer = await edge.bearer(
        "POST", "/v1/chat/completions", edge.token(), {"model": "broken", "messages": ASK, "stream": True}
    )
    assert "[DONE]" not in answer.text


async def test_what_a_model_began_anew_comes_whole_and_cannot_be_streamed(client: openai.AsyncOpenAI) -> None:
    found = await client.chat.completions.create(model="anew", messages=ASK)
    assert found.choices[0].message.content == TEXT
    responded = await client.responses.create(model="anew", input="Say hello.")
    assert responded.output_text == TEXT
    stream = await client.chat.completions.create(model="anew", messages=ASK, stream=True)
    with pytest.raises(openai.APIError, match="start anew"):
        [chunk async for chunk in stream]


async def test_what_must_fit_a_form_is_streamed_when_it_does(client: openai.AsyncOpenAI) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "string"}}}
    stream = await client.chat.completions.create(model="anew", messages=ASK, response_format=form, stream=True)
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == TEXT
    text = {"format": {"type": "json_schema", "name": "a", "schema": {"type": "string"}}}
    for background in (False, True):
        events = await client.responses.create(
            model="anew", input="Say hello.", text=text, stream=True, background=background
        )
        *_, last = [event async for event in events]
        assert (last.type, last.response.output_text) == ("response.completed", TEXT)
        again = await client.responses.retrieve(last.response.id, stream=True)
        assert [event.delta async for event in again if event.type == "response.output_text.delta"] == list(WORDS)


async def test_a_client_that_leaves_ends_the_generation(
    client: openai.AsyncOpenAI, inference: ScriptedInference
) -> None:
    stream = await client.chat.completions.create(model="slow", messages=ASK, stream=True)
    await anext(aiter(stream))
    assert inference.open == 1
    await stream.close()
    for _ in range(100):
        if not inference.open:
            break
        await asyncio.sleep(0.02)
    assert inference.open == 0


async def test_malformed_bodies_are_the_callers_fault(edge: Edge) -> None:
    for body in ([], "text", {"model": 1, "messages": ASK}, {"model": "words", "messages": "hello"}, {"model": "words"},
                 {"model": "words", "messages": [{"role": "king", "content": "x"}]},
                 {"model": "words", "messages": ASK, "temperature": "hot"}):  # fmt: skip
        answer = await edge.bearer("POST", "/v1/chat/completions", edge.token(), body)
        assert (answer.status, answer.body["error"]["type"]) == (400, "invalid_request_error")
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {edge.token()}"}) as session:
        async with session.post(f"{edge.url}/v1/chat/completions", data=b"{not json") as raw:
            assert (raw.status, (await raw.json())["error"]["message"]) == (400, "the body is not JSON")


WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


async def test_tools_are_asked_for_and_answered(client: openai.AsyncOpenAI, inference: ScriptedInference) -> None:
    found = await client.chat.completions.create(model="tools", messages=ASK, tools=[WEATHER], tool_choice="required")
    assert found.choices[0].finish_reason == "tool_calls"
    calls = found.choices[0].message.tool_calls or []
    assert [(call.id, call.function.name, json.loads(call.function.arguments)["city"]) for call in calls] == [
        ("call_0", "weather", "Oslo"), ("call_1", "weather", "Rome"),
    ]  # fmt: skip
    asked = inference.asked[-1]
    assert (asked.tools[0].name, asked.tools[0].input_schema["required"][0]) == ("weather", "city")
    assert asked.tool_choice.mode == message_pb2.TOOL_MODE_REQUIRED
    answers = [{"role": "tool", "tool_call_id": call.id, "content": "sunny"} for call in calls]
    await client.chat.completions.create(
        model="words", messages=[*ASK, found.choices[0].message.to_dict(), *answers], tools=[WEATHER]
    )
    _, said, *results = inference.asked[-1].messages
    assert [part.tool_call.id for part in said.content if part.HasField("tool_call")] == ["call_0", "call_1"]
    assert [result.content[0].tool_result.tool_call_id for result in results] == ["call_0", "call_1"]


async def test_tool_calls_stream_with_their_index(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model="tools", messages=ASK, tools=[WEATHER], stream=True)
    deltas = [chunk.choices[0] async for chunk in stream]
    calls = [call for delta in deltas for call in delta.delta.tool_calls or []]
    assert [(call.index, call.id) for call in calls] == [(0, "call_0"), (1, "call_1")]
    assert deltas[-1].finish_reason == "tool_calls"


async def test_images_and_schemas_reach_the_model(client: openai.AsyncOpenAI, inference: ScriptedInference) -> None:
    parts = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0="}},
        {"type": "image_url", "image_url": {"url": "https://example.com/cat.webp"}},
    ]
    schema = {"type": "object", "properties": {"answer": {"type": "string"}}}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema, "strict": True}}
    await client.chat.completions.create(
        model="words", messages=[{"role": "user", "content": parts}], response_format=form, reasoning_effort="high"
    )
    asked = inference.asked[-1]
    _, given, linked = asked.messages[0].content
    assert (given.image.media_type, given.image.data) == ("image/png", b"\x89PNG\r"[:5])
    assert (linked.image.media_type, linked.image.url) == ("image/webp", "https://example.com/cat.webp")
    assert asked.response_format.json_schema["type"] == "object"
    assert asked.reasoning_effort == message_pb2.REASONING_EFFORT_HIGH
