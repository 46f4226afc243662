"""Anthropic's messages: what is asked, and the answer whole or as named events."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from services.gateway.facades import http, reading
from services.gateway.facades.anthropic_read import content
from services.gateway.facades.ask import (
    Ask,
    Began,
    Ended,
    Message,
    Piece,
    Pieces,
    Reason,
    Role,
    Said,
    Spent,
    Tool,
    Unsupported,
    Used,
    whole,
)
from services.gateway.facades.openai_chat import schema_of
from services.gateway.facades.reading import Object
from shared.errors import FieldRequired

_REASONS: Final = {
    Reason.STOP: "end_turn", Reason.LENGTH: "max_tokens", Reason.FILTER: "refusal", Reason.TOOLS: "tool_use",
}  # fmt: skip
_CHOICES: Final = {"auto": "auto", "any": "required", "none": "none"}
_UNSUPPORTED: Final[Mapping[str, tuple[Any, ...]]] = {
    "thinking": ({"type": "disabled"},), "mcp_servers": ([],), "container": (), "top_k": (),
    "output_format": (),
}  # fmt: skip

Event = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class MessageRequest:
    """One request."""

    ask: Ask
    stream: bool


def read(data: Object) -> MessageRequest:
    """Raises InvalidArgument with the field as Anthropic names it."""
    reading.refuse(data, _UNSUPPORTED)
    limit = reading.integer(data, "max_tokens")
    if limit is None:
        raise FieldRequired("max_tokens")
    messages = [one for several in reading.entries(data, "messages", content) for one in several]
    if not messages:
        raise FieldRequired("messages")
    output = reading.inner(data, "output_config")
    ask = Ask(
        model=reading.text(data, "model"),
        messages=(*_system(data), *messages),
        max_tokens=limit,
        temperature=reading.number(data, "temperature"),
        top_p=reading.number(data, "top_p"),
        stop=reading.stops(data, "stop_sequences"),
        tools=reading.entries(data, "tools", _tool),
        tool_choice=_choice(reading.inner(data, "tool_choice")),
        schema=schema_of(reading.inner(output, "format"), "output_config.format"),
        effort=reading.text(output, "effort", default=""),
    )
    return MessageRequest(ask, reading.flag(data, "stream"))


async def message(pieces: Pieces) -> Mapping[str, Any]:
    """The answer whole."""
    found = await whole(pieces)
    blocks: list[Mapping[str, Any]] = [{"type": "text", "text": found.text}] if found.text else []
    for use in found.uses:
        arguments = json.loads(use.arguments or "{}")
        blocks.append({"type": "tool_use", "id": use.id, "name": use.name, "input": arguments})
    reason = Reason.TOOLS if found.uses else found.ended.reason
    ended = {"stop_reason": _REASONS[reason], "usage": _usage(found.ended.spent)}
    return _head(found.began) | {"content": blocks} | ended


class _Blocks:
    """The content blocks of a stream: one is open at a time, and all are numbered."""

    def __init__(self) -> None:
        self._index = -1
        self._open: object = None

    def take(self, piece: Said | Used) -> list[Event]:
        """The events of one piece; where a new block begins, the one before is closed."""
        which: object = "text" if isinstance(piece, Said) else piece.index
        found: list[Event] = []
        if which != self._open:
            found += self.close()
            self._index, self._open = self._index + 1, which
            found.append(("content_block_start", {"index": self._index, "content_block": _block(piece)}))
        return [*found, ("content_block_delta", {"index": self._index, "delta": _delta(piece)})]

    def close(self) -> list[Event]:
        """The event that ends the open block, if one is."""
        opened, self._open = self._open, None
        return [] if opened is None else [("content_block_stop", {"index": self._index})]


async def events(pieces: Pieces) -> AsyncGenerator[bytes, None]:
    """The answer as named server-sent events, message_start to message_stop."""
    blocks = _Blocks()
    async with aclosing(pieces):
        async for piece in pieces:
            for kind, data in _events(piece, blocks):
                yield http.event(http.text({"type": kind, **data}), name=kind)


def _events(piece: Piece, blocks: _Blocks) -> list[Event]:
    match piece:
        case Began():
            start = _head(piece) | {"usage": _usage(Spent(piece.input_tokens))}
            return [("message_start", {"message": start}), ("ping", {})]
        case Said() | Used():
            return blocks.take(piece)
        case Ended(reason, spent):
            delta = {"stop_reason": _REASONS[reason], "stop_sequence": None}
            last: Event = ("message_delta", {"delta": delta, "usage": _usage(spent)})
            return [*blocks.close(), last, ("message_stop", {})]
        case _:  # what only responses of OpenAI's have
            return []


def _head(began: Began) -> dict[str, Any]:
    return {
        "id": f"msg_{began.id}",
        "type": "message",
        "role": "assistant",
        "model": began.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _usage(spent: Spent) -> Mapping[str, Any]:
    """Anthropic counts tokens read from a cache apart."""
    return {
        "input_tokens": spent.input - spent.cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": spent.cached,
        "output_tokens": spent.output,
    }


def _block(piece: Said | Used) -> Mapping[str, Any]:
    if isinstance(piece, Said):
        return {"type": "text", "text": ""}
    return {"type": "tool_use", "id": piece.id, "name": piece.name, "input": {}}


def _delta(piece: Said | Used) -> Mapping[str, Any]:
    if isinstance(piece, Said):
        return {"type": "text_delta", "text": piece.text}
    return {"type": "input_json_delta", "partial_json": piece.arguments}


def _system(data: Object) -> tuple[Message, ...]:
    given = data.get("system")
    if not given:
        return ()
    if isinstance(given, str):
        return (Message(Role.SYSTEM, (given,)),)
    return (Message(Role.SYSTEM, reading.entries(data, "system", lambda part, _: reading.text(part, "text"))),)


def _tool(data: Object, place: str) -> Tool:
    if data.get("type", "custom") != "custom":
        raise Unsupported(f"{place}.type", "must be custom on this mesh")
    schema = reading.inner(data, "input_schema")
    return Tool(reading.text(data, "name"), reading.text(data, "description", default=""), schema)


def _choice(choice: Object) -> str:
    if choice.get("type") == "tool":
        return reading.text(choice, "name")
    return _CHOICES.get(str(choice.get("type", "auto")), "auto")
