"""OpenAI's chat completions: what is asked, and the answer whole or as chunks."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from services.gateway.facades import http, reading
from services.gateway.facades.ask import (
    Ask,
    Began,
    Clip,
    Ended,
    Image,
    Message,
    Part,
    Pieces,
    Reason,
    Role,
    Said,
    Spent,
    Tool,
    ToolUse,
    Unsupported,
    Used,
    whole,
)
from services.gateway.facades.reading import Object
from shared.errors import FieldRequired, InvalidArgument

DONE: Final = http.event("[DONE]")
_ROLES: Final = {
    "system": Role.SYSTEM, "developer": Role.SYSTEM, "user": Role.USER, "assistant": Role.ASSISTANT, "tool": Role.TOOL,
}  # fmt: skip
_REASONS: Final = {
    Reason.STOP: "stop", Reason.LENGTH: "length", Reason.FILTER: "content_filter", Reason.TOOLS: "tool_calls",
}  # fmt: skip
_SOUNDS: Final = {"wav": "audio/wav", "mp3": "audio/mpeg"}
_UNSUPPORTED: Final[Mapping[str, tuple[Any, ...]]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "audio": (),
    "modalities": (["text"],),
    "logit_bias": ({},),
    "prediction": (),
    "web_search_options": (),
    "functions": ([],),
    "function_call": ("none", "auto"),
}


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One request."""

    ask: Ask
    stream: bool
    include_usage: bool


def read(data: Object) -> ChatRequest:
    """Raises InvalidArgument with the field as OpenAI names it."""
    reading.refuse(data, _UNSUPPORTED)
    messages = reading.entries(data, "messages", _message)
    if not messages:
        raise FieldRequired("messages")
    limit = reading.integer(data, "max_completion_tokens") or reading.integer(data, "max_tokens") or 0
    ask = Ask(
        model=reading.text(data, "model"),
        messages=messages,
        max_tokens=limit,
        temperature=reading.number(data, "temperature"),
        top_p=reading.number(data, "top_p"),
        presence_penalty=reading.number(data, "presence_penalty"),
        frequency_penalty=reading.number(data, "frequency_penalty"),
        seed=reading.integer(data, "seed"),
        stop=reading.stops(data, "stop"),
        tools=reading.entries(data, "tools", _tool),
        tool_choice=_tool_choice(data),
        schema=_schema(data),
        effort=reading.text(data, "reasoning_effort", default=""),
    )
    options = reading.inner(data, "stream_options")
    return ChatRequest(ask, reading.flag(data, "stream"), reading.flag(options, "include_usage"))


async def completion(pieces: Pieces) -> Mapping[str, Any]:
    """The answer whole."""
    found = await whole(pieces)
    message: dict[str, Any] = {"role": "assistant", "content": found.text or (None if found.uses else "")}
    message |= {"refusal": None, "annotations": []}
    if found.uses:
        message["tool_calls"] = [_call(use) for use in found.uses]
    reason = _REASONS[Reason.TOOLS if found.uses else found.ended.reason]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
    head = _head(found.began, "chat.completion")
    return {**head, "choices": [choice], "usage": usage(found.ended.spent)}


async def chunks(pieces: Pieces, *, include_usage: bool) -> AsyncGenerator[bytes, None]:
    """The answer as server-sent events: the role first, the finish reason last, usage where asked for, then [DONE]."""
    head: Mapping[str, Any] = {}
    more: Mapping[str, Any] = {"usage": None} if include_usage else {}
    async with aclosing(pieces):
        async for piece in pieces:
            match piece:
                case Began():
                    head = _head(piece, "chat.completion.chunk")
                    yield _chunk(head, {"role": "assistant", "content": "", "refusal": None}, more)
                case Said(said):
                    yield _chunk(head, {"content": said}, more)
                case Used():
                    yield _chunk(head, {"tool_calls": [_call_delta(piece)]}, more)
                case Ended(reason, spent):
                    yield _chunk(head, {}, more, reason=_REASONS[reason])
                    if include_usage:
                        yield http.event(http.text({**head, "choices": [], "usage": usage(spent)}))
    yield DONE


def usage(spent: Spent) -> Mapping[str, Any]:
    return {
        "prompt_tokens": spent.input,
        "completion_tokens": spent.output,
        "total_tokens": spent.total,
        "prompt_tokens_details": {"cached_tokens": spent.cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": spent.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _head(began: Began, kind: str) -> Mapping[str, Any]:
    identity = f"chatcmpl-{began.id}"
    head = {"id": identity, "object": kind, "created": began.created, "model": began.model}
    return head | {"system_fingerprint": None}


def _chunk(head: Object, delta: Object, more: Object, *, reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    return http.event(http.text({**head, "choices": [choice], **more}))


def _call(use: ToolUse) -> Mapping[str, Any]:
    return {"id": use.id, "type": "function", "function": {"name": use.name, "arguments": use.arguments}}


def _call_delta(piece: Used) -> Mapping[str, Any]:
    if not piece.id:
        return {"index": piece.index, "function": {"arguments": piece.arguments}}
    function = {"name": piece.name, "arguments": piece.arguments}
    return {"index": piece.index, "id": piece.id, "type": "function", "function": function}


def _message(data: Object, place: str) -> Message:
    role = _ROLES.get(reading.text(data, "role"))
    if role is None:
        raise InvalidArgument(f"{place}.role must be one of {', '.join(_ROLES)}", field=f"{place}.role")
    return Message(
        role=role,
        parts=_parts(data, place),
        name=reading.text(data, "name", default=""),
        uses=reading.entries(data, "tool_calls", _use),
        answers=reading.text(data, "tool_call_id", default=""),
    )


def _parts(data: Object, place: str) -> tuple[Part, ...]:
    content = data.get("content")
    if isinstance(content, str):
        return (content,)
    if content is None and (data.get("tool_calls") or data.get("role") == "assistant"):
        return ()
    if not isinstance(content, list):
        raise InvalidArgument(f"{place}.content must be a string or a list of parts", field=f"{place}.content")
    return tuple(_part(reading.as_object(one, f"{place}.content"), f"{place}.content") for one in content)


def _part(data: Object, place: str) -> Part:
    match data.get("type"):
        case "text":
            return reading.text(data, "text")
        case "refusal":
            return reading.text(data, "refusal")
        case "image_url":
            return image(reading.text(reading.inner(data, "image_url"), "url"))
        case "input_audio":
            sound = reading.inner(data, "input_audio")
            form = reading.text(sound, "format")
            if form not in _SOUNDS:
                raise Unsupported(f"{place}.input_audio.format", f"must be one of {', '.join(_SOUNDS)}")
            return Clip("audio", _SOUNDS[form], reading.text(sound, "data"))
        case "video_url":  # as vLLM's server has it
            found = image(reading.text(reading.inner(data, "video_url"), "url"))
            return Clip("video", found.media_type, found.data, found.url)
        case "file":
            return document(reading.inner(data, "file"), f"{place}.file")
        case other:
            raise Unsupported(place, f"of type {other} is not supported by this mesh")


def document(data: Object, place: str) -> Clip:
    """A document by its data; those uploaded before are not kept here, and none is fetched."""
    reading.refuse(data, {"file_id": (), "file_url": ()})
    found = image(reading.text(data, "file_data"))
    if found.url:
        raise InvalidArgument(f"{place}.file_data must be a data: URL", field=f"{place}.file_data")
    return Clip("document", found.media_type, found.data, name=reading.text(data, "filename", default=""))


def image(url: str) -> Image:
    """From an address, or a data: URL."""
    head, comma, data = url.partition(",")
    if not head.startswith("data:") or not comma:
        return Image(url=url)
    return Image(media_type=head.removeprefix("data:").partition(";")[0], data=data)


def _use(data: Object, place: str) -> ToolUse:
    function = reading.inner(data, "function")
    if not function:
        raise FieldRequired(f"{place}.function")
    return ToolUse(reading.text(data, "id"), reading.text(function, "name"), reading.text(function, "arguments"))


def _tool(data: Object, place: str) -> Tool:
    if data.get("type") != "function":
        raise Unsupported(f"{place}.type", "must be function on this mesh")
    function = reading.inner(data, "function")
    schema = reading.inner(function, "parameters") or {"type": "object", "properties": {}}
    return Tool(reading.text(function, "name"), reading.text(function, "description", default=""), schema)


def _tool_choice(data: Object) -> str:
    choice = data.get("tool_choice")
    if isinstance(choice, dict):
        return reading.text(reading.inner(choice, "function"), "name")
    return choice if choice in {"none", "required"} else "auto"


def _schema(data: Object) -> Mapping[str, Any] | None:
    wanted = reading.inner(data, "response_format")
    named = reading.inner(wanted, "json_schema") if wanted.get("type") == "json_schema" else {}
    return schema_of({**named, **wanted}, "response_format")


def schema_of(wanted: Object, field: str) -> Mapping[str, Any] | None:
    """The schema that an answer in this form must have; None for text. Raises Unsupported and InvalidArgument."""
    match wanted.get("type", "text"):
        case "text":
            return None
        case "json_object":
            return {"type": "object"}
        case "json_schema":
            return reading.inner(wanted, "schema")
        case other:
            raise Unsupported(field, f"of type {json.dumps(other)} is not supported by this mesh")
