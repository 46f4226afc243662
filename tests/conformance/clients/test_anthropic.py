"""Anthropic's official Python client, unchanged, against the edge."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator

import anthropic
import pytest
import pytest_asyncio

from agentnet.inference.v1 import message_pb2
from tests.support.edge import Edge
from tests.support.scripted_inference import WORDS, ScriptedInference

# The client imports its parts at first use, for seconds in which this loop would serve nobody: here is better.
with anthropic.Anthropic(api_key="none") as _early:
    _PARTS = (_early.messages, _early.models)

pytestmark = pytest.mark.asyncio(loop_scope="module")
ASK = [{"role": "user", "content": "Say hello."}]
TEXT = "".join(WORDS)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(edge: Edge) -> AsyncIterator[anthropic.AsyncAnthropic]:
    made = await edge.ok("POST", "/v1/keys", edge.token(), {"display_name": "sdk", "roles": ["tenant_user"]})
    async with anthropic.AsyncAnthropic(base_url=edge.url, api_key=made["secret"], max_retries=0) as connected:
        yield connected


async def test_a_message_comes_whole(client: anthropic.AsyncAnthropic, inference: ScriptedInference) -> None:
    found = await client.messages.create(
        model="words", max_tokens=64, system="Be kind.", messages=ASK, temperature=0.25, stop_sequences=["END"]
    )
    assert [block.text for block in found.content if block.type == "text"] == [TEXT]
    assert (found.stop_reason, found.role, found.type, found.model) == ("end_turn", "assistant", "message", "words")
    assert (found.usage.input_tokens, found.usage.output_tokens, found.usage.cache_read_input_tokens) == (5, 4, 2)
    asked = inference.asked[-1]
    assert [message.content[0].text for message in asked.messages] == ["Be kind.", "Say hello."]
    assert (asked.max_output_tokens, asked.sampling.temperature, list(asked.sampling.stop)) == (64, 0.25, ["END"])
    raw = await client.messages.with_raw_response.create(model="words", max_tokens=64, messages=ASK)
    assert raw.request_id
    assert raw.request_id == raw.headers["x-request-id"]


async def test_a_message_streams_with_named_events(client: anthropic.AsyncAnthropic, edge: Edge) -> None:
    async with client.messages.stream(model="words", max_tokens=64, messages=ASK) as stream:
        assert "".join([text async for text in stream.text_stream]) == TEXT
        final = await stream.get_final_message()
    assert (final.stop_reason, final.usage.output_tokens) == ("end_turn", 4)
    body = {"model": "words", "max_tokens": 9, "messages": ASK, "stream": True}
    answer = await edge.bearer("POST", "/v1/messages", edge.token(), body)
    names = [line.removeprefix("event: ") for line in answer.text.splitlines() if line.startswith("event: ")]
    assert names == [
        "message_start", "ping", "content_block_start", *["content_block_delta"] * 4, "content_block_stop",
        "message_delta", "message_stop",
    ]  # fmt: skip


async def test_an_agent_answers_messages(client: anthropic.AsyncAnthropic) -> None:
    found = await client.messages.create(model="agent:Athena", max_tokens=64, messages=ASK)
    assert (found.content[0].text, found.model) == ("Say hello.", "agent:Athena@1.0.0")  # type: ignore[union-attr]


async def test_errors_have_anthropics_status_and_shape(client: anthropic.AsyncAnthropic, edge: Edge) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        await client.messages.create(model="nothing", max_tokens=9, messages=ASK)
    assert missing.value.body["error"] == {"type": "not_found_error", "message": "no model nothing"}
    assert missing.value.request_id
    assert missing.value.request_id == missing.value.body["request_id"]
    with pytest.raises(anthropic.RateLimitError) as poor:
        await client.messages.create(model="poor", max_tokens=9, messages=ASK)
    assert poor.value.body["error"]["type"] == "billing_error"
    with pytest.raises(anthropic.BadRequestError):
        await client.messages.create(model="words", max_tokens=9, messages=[])
    async with anthropic.AsyncAnthropic(base_url=edge.url, api_key="nothing", max_retries=0) as stranger:
        with pytest.raises(anthropic.AuthenticationError) as refused:
            await stranger.messages.create(model="words", max_tokens=9, messages=ASK)
    assert refused.value.body["type"] == "error"
    assert refused.value.body["error"]["type"] == "authentication_error"


async def test_a_stream_that_breaks_says_so_and_does_not_stop_well(
    client: anthropic.AsyncAnthropic, edge: Edge
) -> None:
    with pytest.raises(anthropic.APIStatusError) as raised:
        async with client.messages.stream(model="broken", max_tokens=9, messages=ASK) as stream:
            async for _ in stream.text_stream:
                pass
    assert "ended in the middle" in str(raised.value)
    body = {"model": "broken", "max_tokens": 9, "messages": ASK, "stream": True}
    assert "message_stop" not in (await edge.bearer("POST", "/v1/messages", edge.token(), body)).text


WEATHER = {"name": "weather", "description": "Of a city.", "input_schema": {"type": "object", "properties": {}}}


async def test_tools_are_asked_for_and_answered(client: anthropic.AsyncAnthropic, inference: ScriptedInference) -> None:
    found = await client.messages.create(
        model="tools", max_tokens=9, messages=ASK, tools=[WEATHER], tool_choice={"type": "tool", "name": "weather"}
    )
    assert found.stop_reason == "tool_use"
    uses = [block for block in found.content if block.type == "tool_use"]
    assert [(use.id, use.input) for use in uses] == [("call_0", {"city": "Oslo"}), ("call_1", {"city": "Rome"})]
    assert (inference.asked[-1].tools[0].name, inference.asked[-1].tool_choice.name) == ("weather", "weather")
    results = [{"type": "tool_result", "tool_use_id": use.id, "content": "sunny"} for use in uses]
    messages = [
        *ASK,
        {"role": "assistant", "content": [block.to_dict() for block in found.content]},
        {"role": "user", "content": [*results, {"type": "text", "text": "Well?"}]},
    ]
    await client.messages.create(model="words", max_tokens=9, messages=messages, tools=[WEATHER])
    _, said, first, second, last = inference.asked[-1].messages
    assert [part.tool_call.id for part in said.content if part.HasField("tool_call")] == ["call_0", "call_1"]
    assert [one.content[0].tool_result.content for one in (first, second)] == ["sunny", "sunny"]
    assert last.content[0].text == "Well?"


async def test_tool_uses_stream_as_blocks_of_json(client: anthropic.AsyncAnthropic) -> None:
    async with client.messages.stream(model="tools", max_tokens=9, messages=ASK, tools=[WEATHER]) as stream:
        final = await stream.get_final_message()
    assert [block.type for block in final.content] == ["text", "tool_use", "tool_use"]
    assert [block.input for block in final.content[1:]] == [{"city": "Oslo"}, {"city": "Rome"}]  # type: ignore[union-attr]


async def test_what_must_fit_a_form_is_asked_for_by_its_schema_and_streamed_when_it_does(
    client: anthropic.AsyncAnthropic, inference: ScriptedInference
) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    form = {"format": {"type": "json_schema", "schema": schema}, "effort": "low"}
    found = await client.messages.create(model="anew", max_tokens=64, messages=ASK, extra_body={"output_config": form})
    assert [block.text for block in found.content if block.type == "text"] == [TEXT]
    asked = inference.asked[-1]
    assert asked.response_format.json_schema["properties"]["city"]["type"] == "string"
    assert asked.reasoning_effort == message_pb2.REASONING_EFFORT_LOW
    told = client.messages.stream(model="anew", max_tokens=64, messages=ASK, extra_body={"output_config": form})
    async with told as stream:
        assert "".join([text async for text in stream.text_stream]) == TEXT
    with pytest.raises(anthropic.BadRequestError, match=r"output_config\.format"):
        await client.messages.create(
            model="words", max_tokens=64, messages=ASK, extra_body={"output_config": {"format": {"type": "xml"}}}
        )


async def test_documents_are_parts_of_a_message(client: anthropic.AsyncAnthropic, inference: ScriptedInference) -> None:
    data = base64.b64encode(b"bytes").decode()
    pdf = {"type": "base64", "media_type": "application/pdf", "data": data}
    plain = {"type": "text", "media_type": "text/plain", "data": "Grüße"}
    blocks = [{"type": "document", "title": "a.pdf", "source": pdf}, {"type": "document", "source": plain}]
    await client.messages.create(model="words", max_tokens=64, messages=[{"role": "user", "content": blocks}])
    first, second = (part.document for part in inference.asked[-1].messages[0].content)
    assert (first.name, first.media_type, first.data) == ("a.pdf", "application/pdf", b"bytes")
    assert (second.media_type, second.data.decode()) == ("text/plain", "Grüße")
    for wrong in ({"source": {"type": "url", "url": "https://example.org"}}, {"citations": {"enabled": True}}):
        content = [{**blocks[0], **wrong}]
        with pytest.raises(anthropic.BadRequestError, match=next(iter(wrong))):
            await client.messages.create(model="words", max_tokens=64, messages=[{"role": "user", "content": content}])
