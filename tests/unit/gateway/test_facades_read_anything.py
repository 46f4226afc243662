"""Whatever JSON a stranger sends, a facade reads it or refuses it; nothing else may come out of reading."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.api import httpbody_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from services.gateway.facades import anthropic, openai_chat, openai_input, openai_models, reading
from services.gateway.facades.ask import Ask
from services.gateway.facades.generation import generation
from shared.errors import InvalidArgument

FIELDS = [
    "model",
    "messages",
    "role",
    "content",
    "type",
    "text",
    "image_url",
    "url",
    "tools",
    "function",
    "name",
    "description",
    "parameters",
    "tool_calls",
    "id",
    "arguments",
    "tool_call_id",
    "tool_choice",
    "response_format",
    "json_schema",
    "schema",
    "stream",
    "stream_options",
    "include_usage",
    "n",
    "stop",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "seed",
    "input",
    "instructions",
    "background",
    "format",
    "system",
    "source",
    "data",
    "media_type",
    "tool_use_id",
    "input_schema",
    "stop_sequences",
    "tool_use",
    "tool_result",
    "image",
    "user",
    "assistant",
    "tool",
]
WORDS = st.sampled_from(
    [*FIELDS, "auto", "any", "none", "required", "data:image/png;base64,AA==", "data:,x", "https://a/b"]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=9)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=6), max_leaves=10
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {}, optional={"role": WORDS, "content": VALUES, "tool_calls": VALUES, "tool_call_id": SCALARS}
    ),
    max_size=3,
)
BODIES = st.fixed_dictionaries(
    {},
    optional={"model": SCALARS, "messages": MESSAGES | VALUES, "input": MESSAGES | VALUES, "max_tokens": SCALARS}
    | {name: VALUES for name in FIELDS if name not in {"model", "messages", "input", "max_tokens"}},
)


def understood(read: Any, body: dict[str, Any]) -> None:
    """Reads and writes on what was read; only a refusal may be raised."""
    try:
        found = read(body)
        if isinstance(ask := getattr(found, "ask", None), Ask):
            generation(ask)
    except InvalidArgument:
        return


@settings(max_examples=100, deadline=None)
@given(BODIES)
def test_reading_ends_in_a_request_or_a_refusal(body: dict[str, Any]) -> None:
    understood(openai_chat.read, body)
    understood(anthropic.read, body)
    understood(lambda found: openai_input.read(found, "gen_1"), body)
    understood(openai_models.read_embedding, body)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"null", b"1", b"{", b"\xff\xfe", b'{"a": NaN}', b"[" * 100_000, b'{"a":' * 5000]
)
def test_what_is_no_object_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidArgument):
        reading.parse(httpbody_pb2.HttpBody(data=data))


def test_a_whole_request_is_read_as_it_is_written() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 5, "n": 1, "user": "u"}
    assert openai_chat.read(json.loads(json.dumps(body))).ask.max_tokens == 5
