"""OpenAI's chat completions, streamed (platform.openai.com/docs/api-reference/chat): OpenAI, Azure and many others."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
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
    ToolDefinition,
    ToolDelta,
    ToolMode,
    Usage,
)
from services.inference.providers.http import HttpCall
from services.inference.providers.refusals import broken_by
from services.inference.providers.sse import ServerEvent

_DONE: Final = b"[DONE]"
_CONTENT: Final = re.compile(rb'"content": ?"')
_STRING: Final = re.compile(rb'(?:[^"\\\x00-\x1f]+|\\.)*')
_PLAIN: Final = re.compile(rb'[^"\\\x00-\x1f]*')
_SHORT: Final = 1024
_FINISH: Final = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
}
_AUDIO: Final = {"audio/wav": "wav", "audio/mpeg": "mp3"}


@dataclass(frozen=True, slots=True)
class ChatDialect:
    """Chat completions. OpenAI's own newer models take their limit by another name than its imitators."""

    path: str = "/chat/completions"
    limit_field: str = "max_tokens"

    def request(self, call: ModelCall) -> HttpCall:
        return HttpCall(self.path.format(model=call.model), {self.limit_field: call.max_output_tokens, **_body(call)})

    def reader(self, provider: str) -> ChatReader:
        return ChatReader(provider)


def azure(api_version: str) -> ChatDialect:
    """Azure OpenAI: the deployment stands in the path (learn.microsoft.com/azure/ai-services/openai/reference)."""
    path = f"/openai/deployments/{{model}}/chat/completions?api-version={api_version}"
    return ChatDialect(path, limit_field="max_completion_tokens")


class ChatReader:
    """Reads `chat.completion.chunk` events."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._form = _NO_FORM
        self.whole = False
        self.ended = False

    def read(self, event: ServerEvent) -> Chunk | None:
        if event.data == _DONE:
            self.ended = True
            return None
        data = json.loads(event.data)
        if data.get("error"):
            raise broken_by(data["error"], provider=self._provider)
        chunk = _chunk(data)
        self.whole = self.whole or bool(chunk and chunk.finish_reason)
        if chunk and chunk.text and not self._form.has(event.data):
            self._form = Form.of(event, chunk)
        return chunk

    def alike(self, events: bytes, at: int) -> tuple[Chunk | None, int]:
        return self._form.read(events, at)


@dataclass(frozen=True, slots=True)
class Form:
    """A text event around its text. Events of one stream mostly differ in nothing else, so many are read at once."""

    before: bytes
    after: bytes

    @classmethod
    def of(cls, event: ServerEvent, chunk: Chunk) -> Form:
        """The form of an event that says only text; else one that no event has."""
        found = _CONTENT.findall(event.data)
        if event.name or len(found) != 1 or chunk != Chunk(chunk.text, 1):
            return _NO_FORM
        before, _, rest = event.data.partition(found[0])
        text, quote, after = rest.partition(b'"')
        if text.decode(errors="replace") != chunk.text:  # an escape, or a quote of another string
            return _NO_FORM
        return cls(b"data: " + before + found[0], quote + after + b"\n\n")

    def has(self, data: bytes) -> bool:
        """Whether an event begins like this one."""
        return bool(self.before) and data.startswith(self.before[6:])

    def read(self, events: bytes, at: int) -> tuple[Chunk | None, int]:
        """What events of this form say, from one place on up to the first of another form; and where that begins."""
        if not (self.before and events.startswith(self.before, at)):
            return None, at
        if len(events) < at + _SHORT and events.endswith(self.after):  # mostly one event comes at a time
            plain = events[at + len(self.before) : -len(self.after)]
            if _PLAIN.fullmatch(plain):
                return Chunk(plain.decode(), 1 if plain else 0), len(events)
        texts = events[at + len(self.before) :].split(self.after + self.before)
        texts[-1], ended, _ = texts[-1].partition(self.after)
        if not ended:
            del texts[-1]
        if not _STRING.fullmatch(b" ".join(texts)) or any(text.endswith(b"\\") for text in texts):
            texts = _first_strings(texts)
        if not texts:
            return None, at
        around = len(self.before) + len(self.after)
        written = b"".join(texts)
        end = at + len(written) + around * len(texts)
        text = "".join(json.loads(b'["' + b'","'.join(texts) + b'"]')) if b"\\" in written else written.decode()
        return Chunk(text, len(texts) - texts.count(b"")), end


_NO_FORM: Final = Form(b"", b"")


def _first_strings(texts: list[bytes]) -> list[bytes]:
    """Those before the first that is not the inside of a JSON string, or may not be."""
    return list(takewhile(lambda text: _STRING.fullmatch(text) and not text.endswith(b"\\"), texts))


def _chunk(data: dict[str, Any]) -> Chunk | None:
    usage = _usage(data.get("usage"), data.get("timings"))
    for choice in data.get("choices") or ():
        delta = choice.get("delta") or {}
        text = delta.get("content") or delta.get("refusal") or ""
        reasoning = delta.get("reasoning_content") or delta.get("reasoning") or ""
        tools = tuple(_tool_delta(tool) for tool in delta.get("tool_calls") or ())
        finish = _FINISH.get(choice.get("finish_reason") or "")
        if text or reasoning or tools or finish or usage:
            return Chunk(text, int(bool(text or reasoning or tools)), finish, usage, reasoning, tools)
        return None
    return Chunk(usage=usage) if usage else None


def _tool_delta(tool: dict[str, Any]) -> ToolDelta:
    function = tool.get("function") or {}
    return ToolDelta(
        index=int(tool.get("index") or 0),
        id=tool.get("id") or "",
        name=function.get("name") or "",
        arguments=function.get("arguments") or "",
    )


def _usage(reported: dict[str, Any] | None, timings: dict[str, Any] | None) -> Usage | None:
    """Where servers differ: DeepSeek and llama.cpp tell what they had read before by other names, and xAI's output
    tokens leave out the thoughts that its total has.
    """
    if not reported:
        return None
    details = reported.get("prompt_tokens_details") or {}
    asked, said = reported.get("prompt_tokens") or 0, reported.get("completion_tokens") or 0
    cached = details.get("cached_tokens") or reported.get("prompt_cache_hit_tokens") or (timings or {}).get("cache_n")
    return Usage(
        input_tokens=asked,
        output_tokens=max(said, (reported.get("total_tokens") or 0) - asked),
        cached_input_tokens=min(cached or 0, asked),
        audio_input_tokens=details.get("audio_tokens") or 0,
        reasoning_tokens=(reported.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0,
    )


def _body(call: ModelCall) -> dict[str, Any]:
    sampling = call.sampling
    chosen = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "seed": sampling.seed,
        "stop": list(sampling.stop) or None,
        "tools": [_tool(tool) for tool in call.tools] or None,
        "tool_choice": _choice(call.tool_choice) if call.tools else None,
        "response_format": _format(call),
        "reasoning_effort": call.reasoning_effort.value if call.reasoning_effort else None,
    }
    return {
        "model": call.model,
        "messages": [shown for message in call.messages for shown in _messages(message)],
        "stream": True,
        "stream_options": {"include_usage": True},
        **{name: value for name, value in chosen.items() if value is not None},
    }


def _messages(message: Message) -> Iterator[dict[str, Any]]:
    if message.role is Role.TOOL:
        for result in message.tool_results:
            yield {"role": "tool", "tool_call_id": result.tool_call_id, "content": result.content}
        return
    shown: dict[str, Any] = {"role": message.role.value, "content": _content(message)}
    if message.name:
        shown["name"] = message.name
    if message.tool_calls:
        shown["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    yield shown


def _content(message: Message) -> str | list[dict[str, Any]]:
    if not message.media:
        return message.text
    return [
        {"type": "text", "text": part.text} if isinstance(part, Text) else _media(part)
        for part in message.parts
        if isinstance(part, Text | Media)
    ]


def _media(media: Media) -> dict[str, Any]:
    encoded = base64.b64encode(media.data).decode()
    if media.kind is MediaKind.AUDIO:
        return {"type": "input_audio", "input_audio": {"data": encoded, "format": _AUDIO[media.media_type]}}
    kind = "video_url" if media.kind is MediaKind.VIDEO else "image_url"  # vLLM's, SGLang's and Qwen's word for films
    return {"type": kind, kind: {"url": media.url or f"data:{media.media_type};base64,{encoded}"}}


def _tool(tool: ToolDefinition) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.input_schema)}
    return {"type": "function", "function": function}


def _choice(choice: ToolChoice) -> str | dict[str, Any]:
    if choice.mode is ToolMode.REQUIRED and choice.name:
        return {"type": "function", "function": {"name": choice.name}}
    return choice.mode.value


def _format(call: ModelCall) -> dict[str, Any] | None:
    asked = call.response_format
    if asked is None:
        return None
    return {"type": "json_schema", "json_schema": {"name": asked.name, "schema": dict(asked.json_schema)}}
