"""OpenAI's responses, streamed and not stored (platform.openai.com/docs/api-reference/responses-streaming)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any, Final

from services.inference.providers.contract import (
    Chunk,
    FinishReason,
    Media,
    MediaKind,
    Message,
    ModelCall,
    Role,
    Text,
    ToolChoice,
    ToolDelta,
    ToolMode,
    Usage,
)
from services.inference.providers.http import HttpCall
from services.inference.providers.refusals import broken_by
from services.inference.providers.sse import ServerEvent

_TEXT: Final = ("response.output_text.delta", "response.refusal.delta")
_REASONING: Final = ("response.reasoning_summary_text.delta", "response.reasoning_text.delta")
_LAST: Final = ("response.completed", "response.incomplete")
_AUDIO: Final = {"audio/wav": "wav", "audio/mpeg": "mp3"}


class ResponsesDialect:
    """One response a call."""

    def request(self, call: ModelCall) -> HttpCall:
        return HttpCall("/responses", _body(call))

    def reader(self, provider: str) -> ResponsesReader:
        return ResponsesReader(provider)


class ResponsesReader:
    """Reads `response.*` events."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._called = False
        self.whole = False
        self.ended = False

    def alike(self, events: bytes, at: int) -> tuple[None, int]:
        """Each event is read by itself."""
        return None, at

    def read(self, event: ServerEvent) -> Chunk | None:
        data = json.loads(event.data)
        kind = data["type"]
        if kind in _TEXT:
            return Chunk(data["delta"], 1)
        if kind in _REASONING:
            return Chunk(reasoning=data["delta"], token_count=1)
        if kind == "response.output_item.added" and data["item"]["type"] == "function_call":
            self._called = True
            item = data["item"]
            return Chunk(tools=(ToolDelta(data["output_index"], item["call_id"], item["name"]),))
        if kind == "response.function_call_arguments.delta":
            return Chunk(token_count=1, tools=(ToolDelta(data["output_index"], arguments=data["delta"]),))
        if kind in _LAST:
            self.whole = self.ended = True
            return Chunk(finish_reason=self._finish(data["response"]), usage=_usage(data["response"]))
        if kind in ("error", "response.failed"):
            raise broken_by(data.get("response", data).get("error") or data, provider=self._provider)
        return None

    def _finish(self, response: dict[str, Any]) -> FinishReason:
        why = (response.get("incomplete_details") or {}).get("reason")
        if why == "content_filter":
            return FinishReason.CONTENT_FILTER
        if why:
            return FinishReason.LENGTH
        return FinishReason.TOOL_CALLS if self._called else FinishReason.STOP


def _usage(response: dict[str, Any]) -> Usage | None:
    reported = response.get("usage")
    if not reported:
        return None
    return Usage(
        input_tokens=reported.get("input_tokens") or 0,
        output_tokens=reported.get("output_tokens") or 0,
        cached_input_tokens=(reported.get("input_tokens_details") or {}).get("cached_tokens") or 0,
        reasoning_tokens=(reported.get("output_tokens_details") or {}).get("reasoning_tokens") or 0,
    )


def _body(call: ModelCall) -> dict[str, Any]:
    form = call.response_format
    tools = [
        {
            "type": "function",
            "name": tool.name,
            "description": tool.description,
            "parameters": dict(tool.input_schema),
            "strict": False,
        }
        for tool in call.tools
    ]
    chosen = {
        "temperature": call.sampling.temperature,
        "top_p": call.sampling.top_p,
        "tools": tools or None,
        "tool_choice": _choice(call.tool_choice) if tools else None,
        "text": {
            "format": {"type": "json_schema", "name": form.name, "schema": dict(form.json_schema), "strict": False}
        }
        if form
        else None,
        "reasoning": {"effort": call.reasoning_effort.value} if call.reasoning_effort else None,
    }
    return {
        "model": call.model,
        "input": [item for message in call.messages for item in _items(message)],
        "max_output_tokens": max(call.max_output_tokens, 16),  # the API refuses less
        "stream": True,
        "store": False,
        **{name: value for name, value in chosen.items() if value is not None},
    }


def _items(message: Message) -> Iterator[dict[str, Any]]:
    for result in message.tool_results:
        yield {"type": "function_call_output", "call_id": result.tool_call_id, "output": result.content}
    if message.role is Role.TOOL:
        return
    kind = "output_text" if message.role is Role.ASSISTANT else "input_text"
    content = [
        {"type": kind, "text": part.text} if isinstance(part, Text) else _media(part)
        for part in message.parts
        if isinstance(part, Text | Media)
    ]
    if content:
        yield {"type": "message", "role": message.role.value, "content": content}
    for call in message.tool_calls:
        yield {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments}


def _media(media: Media) -> dict[str, Any]:
    encoded = base64.b64encode(media.data).decode()
    if media.kind is MediaKind.AUDIO:
        return {"type": "input_audio", "input_audio": {"data": encoded, "format": _AUDIO[media.media_type]}}
    return {"type": "input_image", "image_url": media.url or f"data:{media.media_type};base64,{encoded}"}


def _choice(choice: ToolChoice) -> str | dict[str, str]:
    if choice.mode is ToolMode.REQUIRED and choice.name:
        return {"type": "function", "name": choice.name}
    return choice.mode.value
