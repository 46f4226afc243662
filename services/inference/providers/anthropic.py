"""Anthropic's messages, streamed (docs.anthropic.com/en/api/messages-streaming).

An asked-for JSON schema becomes a tool that must be called, whose input is the answer: it works on every model that has
tools. With tools of the caller's own it is asked for in words instead.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from services.inference.providers.contract import (
    Chunk,
    Film,
    FinishReason,
    Media,
    Message,
    ModelCall,
    ReasoningEffort,
    Role,
    Text,
    ToolCall,
    ToolChoice,
    ToolDelta,
    ToolMode,
    ToolResult,
    Usage,
)
from services.inference.providers.http import HttpCall
from services.inference.providers.refusals import broken_by
from services.inference.providers.sse import ServerEvent

VERSION: Final = "2023-06-01"
_FINISH: Final = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "pause_turn": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "refusal": FinishReason.CONTENT_FILTER,
}
_THINKING_TOKENS: Final = {ReasoningEffort.LOW: 1024, ReasoningEffort.MEDIUM: 4096, ReasoningEffort.HIGH: 16384}
_CHOICES: Final = {ToolMode.AUTO: "auto", ToolMode.NONE: "none", ToolMode.REQUIRED: "any"}


class MessagesDialect:
    """One message a call."""

    def request(self, call: ModelCall) -> HttpCall:
        return HttpCall("/messages", _body(call), {"anthropic-version": VERSION})

    def reader(self, provider: str) -> MessagesReader:
        return MessagesReader(provider)


class MessagesReader:
    """Reads events from message_start to message_stop."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._input: dict[str, Any] = {}
        self._answer_block: int | None = None
        self.whole = False
        self.ended = False

    def alike(self, events: bytes, at: int) -> tuple[None, int]:
        """Each event is read by itself."""
        return None, at

    def read(self, event: ServerEvent) -> Chunk | None:
        data = json.loads(event.data)
        match data["type"]:
            case "message_start":
                self._input = data["message"].get("usage") or {}
                asked = replace(_usage(self._input), output_tokens=0, estimated=True)
                return Chunk(usage=asked) if asked.input_tokens else None
            case "content_block_start":
                return self._started(data["index"], data["content_block"])
            case "content_block_delta":
                return self._delta(data["index"], data["delta"])
            case "message_delta":
                return self._last(data)
            case "message_stop":
                self.ended = True
            case "error":
                raise broken_by(data["error"], provider=self._provider)
        return None

    def _started(self, index: int, block: dict[str, Any]) -> Chunk | None:
        if block["type"] != "tool_use":
            return None
        if block["name"].startswith(_ANSWER):
            self._answer_block = index
            return None
        return Chunk(tools=(ToolDelta(index, block["id"], block["name"]),))

    def _delta(self, index: int, delta: dict[str, Any]) -> Chunk | None:
        match delta["type"]:
            case "text_delta":
                return Chunk(delta["text"], 1)
            case "thinking_delta":
                return Chunk(reasoning=delta["thinking"], token_count=1)
            case "input_json_delta" if index == self._answer_block:
                return Chunk(delta["partial_json"], 1)
            case "input_json_delta":
                return Chunk(token_count=1, tools=(ToolDelta(index, arguments=delta["partial_json"]),))
        return None

    def _last(self, data: dict[str, Any]) -> Chunk:
        reason = data["delta"].get("stop_reason")
        self.whole = self.whole or reason is not None
        finish = _FINISH.get(reason or "", FinishReason.STOP)
        if self._answer_block is not None and finish is FinishReason.TOOL_CALLS:
            finish = FinishReason.STOP
        return Chunk(finish_reason=finish, usage=_usage(self._input | (data.get("usage") or {})))


_ANSWER: Final = "answer_as_"


def _usage(reported: dict[str, Any]) -> Usage:
    read = reported.get("cache_read_input_tokens") or 0
    written = reported.get("cache_creation_input_tokens") or 0
    return Usage(
        input_tokens=(reported.get("input_tokens") or 0) + read + written,
        output_tokens=reported.get("output_tokens") or 0,
        cached_input_tokens=read,
    )


def _body(call: ModelCall) -> dict[str, Any]:
    system = "\n\n".join(message.text for message in call.messages if message.role is Role.SYSTEM)
    form = call.response_format
    if form and call.tools:
        system += f"\n\nAnswer with JSON alone, by this JSON Schema: {json.dumps(form.json_schema)}"
    chosen = {
        "system": system.strip() or None,
        "temperature": call.sampling.temperature,
        "top_p": call.sampling.top_p,
        "stop_sequences": list(call.sampling.stop) or None,
        **_tools(call),
        **_thinking(call),
    }
    return {
        "model": call.model,
        "messages": list(_turns(call.messages)),
        "max_tokens": call.max_output_tokens,
        "stream": True,
        **{name: value for name, value in chosen.items() if value is not None},
    }


def _tools(call: ModelCall) -> dict[str, Any]:
    form = call.response_format
    if form and not call.tools:
        name = _ANSWER + form.name
        answer = {"name": name, "description": "Gives the answer.", "input_schema": dict(form.json_schema)}
        return {"tools": [answer], "tool_choice": {"type": "tool", "name": name}}
    if not call.tools:
        return {}
    tools = [
        {"name": tool.name, "description": tool.description, "input_schema": dict(tool.input_schema)}
        for tool in call.tools
    ]
    return {"tools": tools, "tool_choice": _choice(call.tool_choice)}


def _choice(choice: ToolChoice) -> dict[str, str]:
    if choice.mode is ToolMode.REQUIRED and choice.name:
        return {"type": "tool", "name": choice.name}
    return {"type": _CHOICES[choice.mode]}


def _thinking(call: ModelCall) -> dict[str, Any]:
    """Thinking has a budget in tokens that must leave room to answer, and takes no temperature nor forced tools. A turn
    that is gone on with, after its tools too, would have to show its own signed thoughts, which are not kept.
    """
    budget = _THINKING_TOKENS[call.reasoning_effort] if call.reasoning_effort else 0
    forced = call.tool_choice.mode is ToolMode.REQUIRED if call.tools else call.response_format
    if not budget or budget >= call.max_output_tokens or forced or call.messages[-1].role is not Role.USER:
        return {}
    return {"thinking": {"type": "enabled", "budget_tokens": budget}, "temperature": None, "top_p": None}


def _turns(messages: tuple[Message, ...]) -> Iterator[dict[str, Any]]:
    """Messages as turns: neighbours of one side are one message, since sides must alternate."""
    side, content = "", list[dict[str, Any]]()
    for message in messages:
        if message.role is Role.SYSTEM:
            continue
        speaker = "assistant" if message.role is Role.ASSISTANT else "user"
        if speaker != side and content:
            yield {"role": side, "content": content}
            content = []
        side = speaker
        content += [_block(part) for part in message.parts if not isinstance(part, Film)]
    if content:
        yield {"role": side, "content": content}


def _block(part: Text | Media | ToolCall | ToolResult) -> dict[str, Any]:
    match part:
        case Text():
            return {"type": "text", "text": part.text}
        case Media():
            source = (
                {"type": "url", "url": part.url}
                if part.url
                else {
                    "type": "base64",
                    "media_type": part.media_type,
                    "data": base64.b64encode(part.data).decode(),
                }
            )
            return {"type": part.kind.value, "source": source}
        case ToolCall():
            return {"type": "tool_use", "id": part.id, "name": part.name, "input": json.loads(part.arguments)}
        case ToolResult():
            shown = {"type": "tool_result", "tool_use_id": part.tool_call_id, "content": part.content}
            return {**shown, "is_error": True} if part.is_error else shown
