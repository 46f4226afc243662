"""Tools for models that have none of their own but can be held to a JSON Schema: a call is an answer of a given form.

The model is told of its tools in words and answers with {"tool", "arguments"} or {"answer"}. What it answers streams on
as the text it is, and what it asks for comes out as a call, so that nobody behind can tell the difference. It asks for
one tool at a time. What was said between it and its tools is told to it in words too.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Final

from services.inference.providers.contract import (
    Chunk,
    FinishReason,
    Message,
    ModelCall,
    Part,
    Provider,
    ResponseFormat,
    Role,
    Text,
    ToolCall,
    ToolDefinition,
    ToolDelta,
    ToolMode,
    ToolResult,
    said,
)

_NAME: Final = "answer_or_tool"
_HEAD: Final = re.compile(r'\s*\{\s*"(tool|answer)"\s*:\s*')
# Longer than any beginning of the form, however it is spaced.
_HEAD_CHARACTERS: Final = 64
_STRING: Final = re.compile(r'(?:[^"\\]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*')
_HALF: Final = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}$")
_CALLED: Final = re.compile(r'\s*\{\s*"tool"\s*:\s*"([^"\\]*)"\s*(?:,\s*"arguments"\s*:\s*(.*))?', re.DOTALL)


@dataclass(frozen=True, slots=True)
class ToolForm:
    """A provider whose models call tools by the form of their answers."""

    provider: Provider

    @property
    def name(self) -> str:
        return self.provider.name

    async def stream(self, call: ModelCall) -> AsyncGenerator[Chunk, None]:
        asked, reading = formed(call)
        async with aclosing(self.provider.stream(asked)) as chunks:
            async for chunk in chunks:
                yield reading.read(chunk) if reading else chunk


def formed(call: ModelCall) -> tuple[ModelCall, Reading | None]:
    """The call as the model is asked it, and how its answer is read; None: as it is."""
    messages = tuple(_in_words(message) for message in call.messages)
    asked = replace(call, messages=messages, tools=())
    tools = _allowed(call)
    if not tools or messages[-1].role is Role.ASSISTANT:  # what was begun is gone on with as it was begun
        return asked, None
    form = ResponseFormat(_NAME, _schema(call, tools))
    seed = f"{len(call.messages)}\0{call.messages[-1]}"
    asked = replace(asked, messages=_told(messages, call, tools), response_format=form)
    return asked, Reading(in_words=call.response_format is None, seed=seed)


@dataclass(slots=True)
class Reading:
    """Reads one answer, piece by piece: its text as soon as it is known, its call at the end.

    With `in_words` the answer is a string, else the value of a form of its own. `seed` makes the ids of calls differ.
    """

    in_words: bool
    seed: str
    _kind: str = ""
    _held: str = ""
    _told: int = 0
    """Of a value in `_held`, how much was shown."""

    def read(self, chunk: Chunk) -> Chunk:
        """The piece as everybody else knows it. Tokens of the form count: they were paid for."""
        chunk = replace(chunk, written=chunk.text)
        self._held += chunk.text
        self._kind = self._kind or self._recognised(over=chunk.finish_reason is not None)
        if chunk.finish_reason is None:
            return replace(chunk, text=self._shown())
        if self._kind != "tool":
            return replace(chunk, text=self._shown() if self.in_words or self._kind == "raw" else self._last())
        call = self._called()
        finish = FinishReason.TOOL_CALLS if call else chunk.finish_reason
        return replace(chunk, text="", tools=(call,) if call else (), finish_reason=finish)

    def _recognised(self, *, over: bool) -> str:
        """What it is going to be; empty: that cannot be told yet."""
        head = _HEAD.match(self._held)
        if head is None:  # a model that is held to no form after all speaks as it likes
            begun = self._held.lstrip()
            return "raw" if over or begun[:1] not in ("", "{") or len(begun) > _HEAD_CHARACTERS else ""
        if head[1] == "answer":
            if self.in_words and head.end() == len(self._held) and not over:
                return ""
            self._held = self._held[head.end() + self.in_words :]
        return head[1]

    def _shown(self) -> str:
        """What of the answer is whole by now."""
        if self._kind == "raw":
            found, self._held = self._held, ""
            return found
        if self._kind != "answer":
            return ""
        if not self.in_words:
            return self._value()
        whole = _STRING.match(self._held)
        found = _HALF.sub("", whole[0]) if whole else ""
        self._held = self._held[len(found) :]
        return str(json.loads(f'"{found}"', strict=False))

    def _value(self) -> str:
        """Of an answer of a form of its own what is no end of the form around it."""
        if not self._told:
            self._held = self._held.lstrip()
        found = self._held[self._told :].rstrip().removesuffix("}").rstrip()
        self._told += len(found)
        return found

    def _last(self) -> str:
        """The rest of it, without what is around it; of one that was cut all."""
        found = self._value()
        try:
            _, end = json.JSONDecoder().raw_decode(self._held)
        except ValueError:
            end = len(self._held)
        return found + self._held[self._told : end]

    def _called(self) -> ToolDelta | None:
        """What it asks for. A call that was cut is no JSON, and whoever makes it says so."""
        found = _CALLED.match(self._held)
        if found is None:
            return None
        arguments = found[2] or "{}"
        if (value := _object(self._held)) is not None:
            arguments = json.dumps(value.get("arguments", {}), ensure_ascii=False)
        digest = hashlib.blake2b(f"{self.seed}\0{self._held}".encode(), digest_size=8).hexdigest()
        return ToolDelta(0, f"call_{digest}", found[1], arguments)


def _allowed(call: ModelCall) -> tuple[ToolDefinition, ...]:
    """The tools this call may ask for."""
    choice = call.tool_choice
    if choice.mode is ToolMode.NONE:
        return ()
    return tuple(tool for tool in call.tools if not choice.name or tool.name == choice.name)


def _schema(call: ModelCall, tools: tuple[ToolDefinition, ...]) -> Mapping[str, Any]:
    forms = [_form(tool=({"const": tool.name}), arguments=_arguments(tool)) for tool in tools]
    if call.tool_choice.mode is not ToolMode.REQUIRED:
        answer = dict(call.response_format.json_schema) if call.response_format else {"type": "string"}
        forms.append(_form(answer=answer))
    return forms[0] if len(forms) == 1 else {"anyOf": forms}


def _form(**properties: Any) -> dict[str, Any]:
    required = list(properties)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _arguments(tool: ToolDefinition) -> dict[str, Any]:
    return dict(tool.input_schema) or {"type": "object", "properties": {}, "additionalProperties": False}


def _told(messages: tuple[Message, ...], call: ModelCall, tools: tuple[ToolDefinition, ...]) -> tuple[Message, ...]:
    """The messages with the tools in the system's."""
    told = "\n".join(_described(call, tools))
    if messages[0].role is Role.SYSTEM:
        first = replace(messages[0], parts=(*messages[0].parts, Text(f"\n\n{told}")))
        return (first, *messages[1:])
    return (said(Role.SYSTEM, told), *messages)


def _described(call: ModelCall, tools: tuple[ToolDefinition, ...]) -> Iterator[str]:
    yield 'You have tools. To call one, answer {"tool": its name, "arguments": its arguments}.'
    if call.tool_choice.mode is not ToolMode.REQUIRED:
        yield 'When you know enough, answer {"answer": what you say}.'
    for tool in tools:
        schema = json.dumps(_arguments(tool), separators=(",", ":"), ensure_ascii=False)
        yield f"- {tool.name}: {tool.description} Arguments: {schema}"


def _in_words(message: Message) -> Message:
    """A message without calls and results."""
    if not message.tool_calls and not message.tool_results:
        return message
    role = Role.USER if message.role is Role.TOOL else message.role
    parts = tuple(_text(part) if isinstance(part, ToolCall | ToolResult) else part for part in message.parts)
    return Message(role, tuple(_apart(parts)), message.name)


def _apart(parts: tuple[Part, ...]) -> Iterator[Part]:
    for place, part in enumerate(parts):
        if place and isinstance(part, Text):
            yield Text("\n")
        yield part


def _text(part: ToolCall | ToolResult) -> Text:
    if isinstance(part, ToolCall):
        arguments = _object(part.arguments)
        return Text(json.dumps({"tool": part.name, "arguments": arguments if arguments is not None else {}}))
    return Text(f"The tool {'failed' if part.is_error else 'answered'}: {part.content}")


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
