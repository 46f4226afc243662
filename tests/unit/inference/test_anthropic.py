"""When Claude may think: the API refuses a budget beside forced tools, and in a turn whose thoughts are not shown."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.inference.providers.anthropic import MessagesDialect
from services.inference.providers.contract import (
    Message,
    ModelCall,
    ReasoningEffort,
    ResponseFormat,
    Role,
    Sampling,
    ToolCall,
    ToolChoice,
    ToolDefinition,
    ToolMode,
    ToolResult,
    said,
)

TOOL = ToolDefinition("look_up", "Looks up.", {"type": "object"})
ASKED = said(Role.USER, "Who?")
CALL = ModelCall("m", (ASKED,), Sampling(temperature=0.5), 32_000, tools=(TOOL,), reasoning_effort=ReasoningEffort.LOW)
AFTER_TOOLS = (
    ASKED,
    Message(Role.ASSISTANT, (ToolCall("call_1", "look_up", "{}"),)),
    Message(Role.TOOL, (ToolResult("call_1", "Ada"),)),
)
WITHOUT = {
    "the model must call a tool": replace(CALL, tool_choice=ToolChoice(ToolMode.REQUIRED)),
    "the answer is a tool": replace(CALL, tools=(), response_format=ResponseFormat("form", {"type": "object"})),
    "its tools have answered": replace(CALL, messages=AFTER_TOOLS),
    "it goes on from what it said": replace(CALL, messages=(ASKED, said(Role.ASSISTANT, "It is"))),
    "there is no room": replace(CALL, max_output_tokens=100),
    "nobody asked": replace(CALL, reasoning_effort=None),
}


def test_it_thinks_when_it_is_asked_to() -> None:
    body = MessagesDialect().request(CALL).body
    assert body["thinking"]["budget_tokens"] < body["max_tokens"]
    assert "temperature" not in body


@pytest.mark.parametrize("call", WITHOUT.values(), ids=WITHOUT.keys())
def test_it_does_not_where_the_api_would_refuse_it(call: ModelCall) -> None:
    body = MessagesDialect().request(call).body
    assert "thinking" not in body
    assert body["temperature"] == 0.5
