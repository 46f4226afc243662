"""Anthropic's content blocks, read."""

from __future__ import annotations

import base64
from typing import Final

from services.gateway.facades import http, reading
from services.gateway.facades.ask import Clip, Image, Message, Part, Role, ToolUse, Unsupported
from services.gateway.facades.reading import Object
from shared.errors import InvalidArgument

_ROLES: Final = {"user": Role.USER, "assistant": Role.ASSISTANT}


def content(data: Object, place: str) -> tuple[Message, ...]:
    """One of Anthropic's messages. Results of tools, which come inside a user's, are messages of their own here."""
    role = _ROLES.get(reading.text(data, "role"))
    if role is None:
        raise InvalidArgument(f"{place}.role must be user or assistant", field=f"{place}.role")
    given = data.get("content")
    if isinstance(given, str):
        return (Message(role, (given,)),)
    results: list[Message] = []
    parts: list[Part] = []
    uses: list[ToolUse] = []
    for found in reading.entries(data, "content", _block):
        match found:
            case Message():
                results.append(found)
            case ToolUse():
                uses.append(found)
            case _:
                parts.append(found)
    said = (Message(role, tuple(parts), uses=tuple(uses)),) if parts or uses else ()
    return (*results, *said)


def _block(block: Object, place: str) -> Part | ToolUse | Message:
    match block.get("type"):
        case "text":
            return reading.text(block, "text")
        case "image":
            return _image(reading.inner(block, "source"))
        case "document":
            return _document(block, place)
        case "tool_use":
            arguments = http.text(reading.inner(block, "input"))
            return ToolUse(reading.text(block, "id"), reading.text(block, "name"), arguments)
        case "tool_result":
            return Message(Role.TOOL, (_result(block),), answers=reading.text(block, "tool_use_id"))
        case other:
            raise Unsupported(place, f"of type {other} is not supported by this mesh")


def _image(source: Object) -> Image:
    if source.get("type") == "url":
        return Image(url=reading.text(source, "url"))
    return Image(media_type=reading.text(source, "media_type"), data=reading.text(source, "data"))


def _document(block: Object, place: str) -> Clip:
    """A document by its data, or as text."""
    if reading.flag(reading.inner(block, "citations"), "enabled"):
        raise Unsupported(f"{place}.citations", "are not supported by this mesh")
    source, name = reading.inner(block, "source"), reading.text(block, "title", default="")
    media_type, data = reading.text(source, "media_type", default=""), reading.text(source, "data", default="")
    match source.get("type"):
        case "base64":
            return Clip("document", media_type, data, name=name)
        case "text":
            return Clip("document", media_type, base64.b64encode(data.encode()).decode(), name=name)
        case other:
            raise Unsupported(f"{place}.source", f"of type {other} is not supported by this mesh")


def _result(block: Object) -> str:
    given = block.get("content")
    if given is None or isinstance(given, str):
        return given or ""
    return "".join(reading.entries(block, "content", lambda one, _: reading.text(one, "text")))
