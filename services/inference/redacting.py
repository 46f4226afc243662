"""Prompts as rules leave them: what a rule redacts of a prompt never leaves the mesh."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

from services.inference.providers.contract import Message, Part, Role, Text, ToolCall, ToolResult


def texts_of(messages: Sequence[Message]) -> list[str]:
    """All text of a prompt, whoever wrote it: what policy judges."""
    return [text for message in messages for text in _texts(message) if text]


def sources_of(messages: Sequence[Message]) -> list[str]:
    """What an answer may draw on: the results of tools, without any what system and user said."""
    results = [result.content for message in messages for result in message.tool_results]
    return results or [message.text for message in messages if message.role in (Role.SYSTEM, Role.USER)]


def with_texts(messages: Sequence[Message], texts: Sequence[str]) -> tuple[Message, ...]:
    """The prompt with other texts, in the order of `texts_of`. A message whose text is another one has it in one part,
    where its first stood: something redacted may have reached from one part into the next.
    """
    left = iter(texts)
    return tuple(_with(message, [next(left) if text else "" for text in _texts(message)]) for message in messages)


def _texts(message: Message) -> list[str]:
    results = [result.content for result in message.tool_results]
    return [message.text, *results, *(call.arguments for call in message.tool_calls)]


def _with(message: Message, texts: list[str]) -> Message:
    if texts == _texts(message):
        return message
    text, others = texts[0], iter(texts[1:])
    results = {id(part): next(others) for part in message.parts if isinstance(part, ToolResult)}
    calls = {id(part): next(others) for part in message.parts if isinstance(part, ToolCall)}
    return replace(message, parts=tuple(_parts(message, text, results | calls)))


def _parts(message: Message, text: str, others: dict[int, str]) -> Iterator[Part]:
    whole = text != message.text
    for part in message.parts:
        if isinstance(part, ToolResult):
            yield replace(part, content=others[id(part)])
        elif isinstance(part, ToolCall):
            yield replace(part, arguments=_arguments(part.arguments, others[id(part)]))
        elif not isinstance(part, Text) or not whole:
            yield part
        elif text:
            yield Text(text)
            text = ""


def _arguments(before: str, after: str) -> str:
    """Arguments stay JSON, which providers demand, also where what was redacted was part of their form."""
    if before == after:
        return before
    try:
        json.loads(after)
    except ValueError:
        return json.dumps({"redacted": after})
    return after
