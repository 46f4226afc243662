"""One text for one call: what caches and recordings are keyed by."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import fields
from typing import Any

from services.inference.providers.contract import Film, Media, Message, ModelCall, Part, Text, ToolCall, ToolResult


def canonical(call: ModelCall) -> dict[str, Any]:
    """Everything of a call that changes its answer, as JSON data with nothing optional left in. Time limits do not."""
    sampling = call.sampling
    return {
        "model": call.model,
        "messages": [_message(message) for message in call.messages],
        "sampling": {field.name: _plain(getattr(sampling, field.name)) for field in fields(sampling)},
        "max_output_tokens": call.max_output_tokens,
        "tools": [
            {"name": tool.name, "description": tool.description, "input_schema": dict(tool.input_schema)}
            for tool in call.tools
        ],
        "tool_choice": {"mode": call.tool_choice.mode.value, "name": call.tool_choice.name},
        "response_format": {"name": call.response_format.name, "json_schema": dict(call.response_format.json_schema)}
        if call.response_format
        else None,
        "reasoning_effort": call.reasoning_effort.value if call.reasoning_effort else None,
    }


def digest(data: Any) -> str:
    """SHA-256 over the data as JSON with sorted keys and no spaces."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _message(message: Message) -> dict[str, Any]:
    return {"role": message.role.value, "name": message.name, "parts": [_part(part) for part in message.parts]}


def _part(part: Part) -> dict[str, Any]:
    match part:
        case Text():
            return {"text": part.text}
        case Media():
            data = base64.b64encode(hashlib.sha256(part.data).digest()).decode() if part.data else ""
            return {"media": part.kind.value, "type": part.media_type, "sha256": data, "url": part.url}
        case Film():
            whole = _part(part.media) if part.media else None
            frames = [_part(frame.media) | {"at": frame.at.total_seconds()} for frame in part.frames]
            return {"film": whole, "frames": frames}
        case ToolCall():
            return {"tool_call": part.id, "name": part.name, "arguments": part.arguments}
        case ToolResult():
            return {"tool_result": part.tool_call_id, "content": part.content, "is_error": part.is_error}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
