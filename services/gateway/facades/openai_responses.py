"""OpenAI's responses: what is asked, and the answer whole or as numbered events that can be resumed.

A response is a generation: its id is the generation's, and its events are made from the generation's own, so that the
same events come again whoever reads them and whenever.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from services.gateway.facades import http, openai_chat, reading
from services.gateway.facades.ask import (
    Ask,
    Began,
    Ended,
    Image,
    Message,
    Pieces,
    Reason,
    Role,
    Said,
    Spent,
    Unsupported,
)
from services.gateway.facades.openai_errors import body as error_body
from services.gateway.facades.reading import Object
from shared.errors import FieldRequired, InvalidArgument, MeshError

_PATIENCE_SECONDS: Final = 0.1
PREFIX: Final = "resp_"
_ROLES: Final = {
    "system": Role.SYSTEM, "developer": Role.SYSTEM, "user": Role.USER, "assistant": Role.ASSISTANT,
}  # fmt: skip
_TEXTS: Final = frozenset({"input_text", "output_text", "text"})
_UNSUPPORTED: Final[Mapping[str, tuple[Any, ...]]] = {
    "tools": ([],),
    "previous_response_id": (),
    "conversation": (),
    "prompt": (),
    "include": ([],),
    "reasoning": ({},),
}


@dataclass(frozen=True, slots=True)
class ResponseRequest:
    """One request."""

    ask: Ask
    stream: bool
    background: bool


def read(data: Object, generation_id: str) -> ResponseRequest:
    """Raises InvalidArgument with the field as OpenAI names it."""
    reading.refuse(data, _UNSUPPORTED)
    form = reading.inner(reading.inner(data, "text"), "format")
    background = reading.flag(data, "background")
    instructions = reading.text(data, "instructions", default="")
    system = (Message(Role.SYSTEM, (instructions,)),) if instructions else ()
    ask = Ask(
        model=reading.text(data, "model"),
        messages=(*system, *_input(data)),
        max_tokens=reading.integer(data, "max_output_tokens") or 0,
        temperature=reading.number(data, "temperature"),
        top_p=reading.number(data, "top_p"),
        schema=openai_chat.schema_of(form, "text.format"),
        generation_id=generation_id,
        background=background,
    )
    return ResponseRequest(ask, reading.flag(data, "stream"), background)


@dataclass(slots=True)
class Response:
    """A response as it grows."""

    id: str
    began: bool = False
    model: str = ""
    created: int = 0
    text: str = ""
    status: str = "in_progress"
    spent: Spent | None = None
    error: MeshError | None = None

    def take(self, piece: object) -> None:
        match piece:
            case Began(_, model, created):
                self.began, self.model, self.created = True, model, created
            case Said(said):
                self.text += said
            case Ended(reason, spent):
                self.status = "completed" if reason is Reason.STOP else "incomplete"
                self.spent = spent

    def fail(self, error: MeshError) -> None:
        self.status, self.error = "failed", error

    def body(self) -> Mapping[str, Any]:
        done = self.status != "in_progress"
        cut = {"reason": "max_output_tokens"} if self.status == "incomplete" else None
        failed = error_body(self.error)["error"] if self.error else None
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": self.status,
            "error": {"code": "server_error", "message": failed["message"]} if failed else None,
            "incomplete_details": cut,
            "instructions": None,
            "metadata": {},
            "model": self.model,
            "output": [self.item()] if done and self.text else [],
            "parallel_tool_calls": True,
            "temperature": None,
            "tool_choice": "auto",
            "tools": [],
            "top_p": None,
            "usage": _usage(self.spent) if self.spent else None,
        }

    def item(self) -> Mapping[str, Any]:
        status = "in_progress" if self.status == "in_progress" else "completed"
        content = [self.part()] if status == "completed" else []
        identity = self.id.replace(PREFIX, "msg_", 1)
        return {"id": identity, "type": "message", "status": status, "role": "assistant", "content": content}

    def part(self) -> Mapping[str, Any]:
        return {"type": "output_text", "text": self.text, "annotations": [], "logprobs": []}


async def complete(response: Response, pieces: Pieces) -> Mapping[str, Any]:
    """The response whole. Raises what the pieces raise."""
    async with aclosing(pieces):
        async for piece in pieces:
            response.take(piece)
    return response.body()


async def so_far(response: Response, pieces: Pieces) -> Mapping[str, Any]:
    """The response as far as it has come; what is there already comes at once."""
    async with aclosing(pieces):
        try:
            while True:
                async with asyncio.timeout(_PATIENCE_SECONDS if response.began else None):
                    response.take(await anext(pieces))
        except (TimeoutError, StopAsyncIteration):
            pass
        except MeshError as error:
            if not response.began:
                raise
            response.fail(error)
    return response.body()


async def events(response: Response, pieces: Pieces, *, after: int = -1) -> AsyncGenerator[bytes, None]:
    """The response as events, each with its sequence_number; only those after the one given."""
    number = -1
    async with aclosing(_events(response, pieces)) as found:
        async for kind, data in found:
            number += 1
            if number > after:
                yield http.event(http.text({"type": kind, "sequence_number": number, **data}), name=kind)


async def _events(response: Response, pieces: Pieces) -> AsyncGenerator[tuple[str, Mapping[str, Any]], None]:
    place = {"item_id": response.item()["id"], "output_index": 0, "content_index": 0}
    opened = False
    try:
        async with aclosing(pieces):
            async for piece in pieces:
                response.take(piece)
                match piece:
                    case Began():
                        yield "response.created", {"response": response.body()}
                        yield "response.in_progress", {"response": response.body()}
                    case Said(said):
                        if not opened:
                            opened = True
                            yield "response.output_item.added", {"output_index": 0, "item": _opening(response)}
                            empty = {**response.part(), "text": ""}
                            yield "response.content_part.added", {**place, "part": empty}
                        yield "response.output_text.delta", {**place, "delta": said, "logprobs": []}
                    case Ended() if opened:
                        yield "response.output_text.done", {**place, "text": response.text, "logprobs": []}
                        yield "response.content_part.done", {**place, "part": response.part()}
                        yield "response.output_item.done", {"output_index": 0, "item": response.item()}
    except MeshError as error:
        if not response.began:
            raise
        response.fail(error)
    yield f"response.{response.status}", {"response": response.body()}


def _opening(response: Response) -> Mapping[str, Any]:
    return {**response.item(), "status": "in_progress", "content": []}


def _usage(spent: Spent) -> Mapping[str, Any]:
    return {
        "input_tokens": spent.input,
        "input_tokens_details": {"cached_tokens": spent.cached},
        "output_tokens": spent.output,
        "output_tokens_details": {"reasoning_tokens": spent.reasoning},
        "total_tokens": spent.total,
    }


def _input(data: Object) -> tuple[Message, ...]:
    given = data.get("input")
    if isinstance(given, str):
        return (Message(Role.USER, (given,)),)
    found = reading.entries(data, "input", _message)
    if not found:
        raise FieldRequired("input")
    return found


def _message(data: Object, place: str) -> Message:
    if data.get("type", "message") != "message":
        raise Unsupported(place, f"of type {data['type']} is not supported by this mesh")
    role = _ROLES.get(reading.text(data, "role"))
    if role is None:
        raise InvalidArgument(f"{place}.role must be one of {', '.join(_ROLES)}", field=f"{place}.role")
    content = data.get("content")
    if isinstance(content, str):
        return Message(role, (content,))
    return Message(role, reading.entries(data, "content", _part))


def _part(data: Object, place: str) -> str | Image:
    if data.get("type") in _TEXTS:
        return reading.text(data, "text")
    if data.get("type") == "input_image":
        return openai_chat.image(reading.text(data, "image_url"))
    raise Unsupported(place, f"of type {data.get('type')} is not supported by this mesh")
