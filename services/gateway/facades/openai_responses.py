"""OpenAI's responses: what is asked, and the answer whole or as numbered events that can be resumed.

A response is a generation: its id is the generation's, and its events are made from the generation's own, so that the
same events come again whoever reads them and whenever.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
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
    Tool,
    ToolUse,
    Unsupported,
    Used,
)
from services.gateway.facades.openai_errors import body as error_body
from services.gateway.facades.reading import Object
from shared.errors import FieldRequired, InvalidArgument, MeshError

Event = tuple[str, Mapping[str, Any]]
_PATIENCE_SECONDS: Final = 0.1
PREFIX: Final = "resp_"
_ROLES: Final = {
    "system": Role.SYSTEM, "developer": Role.SYSTEM, "user": Role.USER, "assistant": Role.ASSISTANT,
}  # fmt: skip
# What cut an answer short, in OpenAI's words.
_CUT: Final = {Reason.LENGTH: "max_output_tokens", Reason.FILTER: "content_filter"}
_TEXTS: Final = frozenset({"input_text", "output_text", "text"})
_UNSUPPORTED: Final[Mapping[str, tuple[Any, ...]]] = {
    "previous_response_id": (),
    "conversation": (),
    "prompt": (),
    "include": ([],),
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
        tools=reading.entries(data, "tools", _tool),
        tool_choice=_tool_choice(data),
        schema=openai_chat.schema_of(form, "text.format"),
        effort=reading.text(reading.inner(data, "reasoning"), "effort", default=""),
        generation_id=generation_id,
        background=background,
    )
    return ResponseRequest(ask, reading.flag(data, "stream"), background)


@dataclass(slots=True)
class Output:
    """One item of a response: what is said, or a call of one of the caller's functions."""

    id: str
    text: str = ""
    call: ToolUse | None = None

    def item(self, *, done: bool) -> Mapping[str, Any]:
        """As it is listed; while it is not done, without its content."""
        status = "completed" if done else "in_progress"
        if use := self.call:
            arguments = use.arguments if done else ""
            said = {"call_id": use.id, "name": use.name, "arguments": arguments}
            return {"id": self.id, "type": "function_call", "status": status, **said}
        content = [self.part()] if done else []
        return {"id": self.id, "type": "message", "status": status, "role": "assistant", "content": content}

    def part(self) -> Mapping[str, Any]:
        return {"type": "output_text", "text": self.text, "annotations": [], "logprobs": []}


@dataclass(slots=True)
class Response:
    """A response as it grows. Its outputs, in the order in which they began, by the index of the call or None."""

    id: str
    began: bool = False
    model: str = ""
    created: int = 0
    outputs: dict[int | None, Output] = field(default_factory=dict)
    status: str = "in_progress"
    cut: str = ""
    spent: Spent | None = None
    error: MeshError | None = None

    def take(self, piece: object) -> None:
        match piece:
            case Began(_, model, created):
                self.began, self.model, self.created = True, model, created
            case Said(said):
                self.outputs.setdefault(None, Output(self.id.replace(PREFIX, "msg_", 1))).text += said
            case Used(index, arguments, use_id, name):
                known = Output(f"{self.id.replace(PREFIX, 'fc_', 1)}_{index}", call=ToolUse(use_id, name, ""))
                output = self.outputs.setdefault(index, known)
                use = output.call or ToolUse(use_id, name, "")
                output.call = replace(use, arguments=use.arguments + arguments)
            case Ended(reason, spent):
                self.cut = _CUT.get(reason, "")
                self.status = "incomplete" if self.cut else "completed"
                self.spent = spent

    def fail(self, error: MeshError) -> None:
        self.status, self.error = "failed", error

    def body(self) -> Mapping[str, Any]:
        done = self.status != "in_progress"
        failed = error_body(self.error)["error"] if self.error else None
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": self.status,
            "error": {"code": "server_error", "message": failed["message"]} if failed else None,
            "incomplete_details": {"reason": self.cut} if self.cut else None,
            "instructions": None,
            "metadata": {},
            "model": self.model,
            "output": [output.item(done=True) for output in self.outputs.values()] if done else [],
            "parallel_tool_calls": True,
            "temperature": None,
            "tool_choice": "auto",
            "tools": [],
            "top_p": None,
            "usage": _usage(self.spent) if self.spent else None,
        }


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


async def _events(response: Response, pieces: Pieces) -> AsyncGenerator[Event, None]:
    try:
        async with aclosing(pieces):
            async for piece in pieces:
                known = len(response.outputs)
                response.take(piece)
                if isinstance(piece, Began):
                    yield "response.created", {"response": response.body()}
                    yield "response.in_progress", {"response": response.body()}
                for event in _grown(response, piece, opens=len(response.outputs) > known):
                    yield event
    except MeshError as error:
        if not response.began:
            raise
        response.fail(error)
    yield f"response.{response.status}", {"response": response.body()}


def _grown(response: Response, piece: object, *, opens: bool) -> Iterator[Event]:
    """What a piece did to the outputs."""
    match piece:
        case Said(said):
            output, place = _place(response, None)
            if opens:
                yield (
                    "response.output_item.added",
                    {"output_index": place["output_index"], "item": output.item(done=False)},
                )
                yield "response.content_part.added", {**place, "content_index": 0, "part": Output("").part()}
            yield "response.output_text.delta", {**place, "content_index": 0, "delta": said, "logprobs": []}
        case Used(index, arguments):
            output, place = _place(response, index)
            if opens:
                yield (
                    "response.output_item.added",
                    {"output_index": place["output_index"], "item": output.item(done=False)},
                )
            yield "response.function_call_arguments.delta", {**place, "delta": arguments}
        case Ended():
            for one in response.outputs:
                yield from _closed(*_place(response, one))


def _closed(output: Output, place: Mapping[str, Any]) -> Iterator[Event]:
    if use := output.call:
        yield "response.function_call_arguments.done", {**place, "name": use.name, "arguments": use.arguments}
    else:
        yield "response.output_text.done", {**place, "content_index": 0, "text": output.text, "logprobs": []}
        yield "response.content_part.done", {**place, "content_index": 0, "part": output.part()}
    yield "response.output_item.done", {"output_index": place["output_index"], "item": output.item(done=True)}


def _place(response: Response, index: int | None) -> tuple[Output, Mapping[str, Any]]:
    """An output and where it stands."""
    output = response.outputs[index]
    return output, {"item_id": output.id, "output_index": list(response.outputs).index(index)}


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
    return _turns(found)


def _message(data: Object, place: str) -> Message:
    match data.get("type", "message"):
        case "message":
            return _said(data, place)
        case "function_call":
            use = ToolUse(*(reading.text(data, name) for name in ("call_id", "name", "arguments")))
            return Message(Role.ASSISTANT, (), uses=(use,))
        case "function_call_output":
            return Message(Role.TOOL, _parts(data, "output"), answers=reading.text(data, "call_id"))
        case other:
            raise Unsupported(place, f"of type {other} is not supported by this mesh")


def _said(data: Object, place: str) -> Message:
    role = _ROLES.get(reading.text(data, "role"))
    if role is None:
        raise InvalidArgument(f"{place}.role must be one of {', '.join(_ROLES)}", field=f"{place}.role")
    return Message(role, _parts(data, "content"))


def _parts(data: Object, name: str) -> tuple[str | Image, ...]:
    given = data.get(name)
    return (given,) if isinstance(given, str) else reading.entries(data, name, _part)


def _turns(items: Sequence[Message]) -> tuple[Message, ...]:
    """Calls that stand together, and what was said before them, are one message of the assistant's."""
    found: list[Message] = []
    for item in items:
        last = found[-1] if found else None
        if item.uses and last and last.role is Role.ASSISTANT:
            found[-1] = replace(last, uses=(*last.uses, *item.uses))
        else:
            found.append(item)
    return tuple(found)


def _tool(data: Object, place: str) -> Tool:
    """A function of the caller's; tools that OpenAI runs itself are not here."""
    if data.get("type") != "function":
        raise Unsupported(f"{place}.type", "must be function on this mesh")
    schema = reading.inner(data, "parameters") or {"type": "object", "properties": {}}
    return Tool(reading.text(data, "name"), reading.text(data, "description", default=""), schema)


def _tool_choice(data: Object) -> str:
    choice = data.get("tool_choice")
    if isinstance(choice, dict):
        return reading.text(choice, "name")
    return choice if choice in {"none", "required"} else "auto"


def _part(data: Object, place: str) -> str | Image:
    if data.get("type") in _TEXTS:
        return reading.text(data, "text")
    if data.get("type") == "input_image":
        return openai_chat.image(reading.text(data, "image_url"))
    raise Unsupported(place, f"of type {data.get('type')} is not supported by this mesh")
