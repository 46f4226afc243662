"""OpenAI's responses as they are told: whole, or as numbered events that can be resumed.

Events are made of an answer's pieces alone, so that the same events come again whoever reads them and whenever.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from grpc import StatusCode

from services.gateway.facades import http
from services.gateway.facades.ask import Began, Ended, Listed, Pieces, Ran, Reason, Said, Spent, Turned, Used
from services.gateway.facades.openai_items import Event, Output
from shared.errors import MeshError

PREFIX: Final = "resp_"
UNDONE: Final = frozenset({"queued", "in_progress"})
_PATIENCE_SECONDS: Final = 0.1
# What cut an answer short, in OpenAI's words.
_CUT: Final = {Reason.LENGTH: "max_output_tokens", Reason.FILTER: "content_filter"}


@dataclass(slots=True)
class Response:
    """A response as it grows. `asked` is what of the request it repeats; `labels` has the tools of the mesh, each with
    the caller's name for the mesh, and `asks` those of them that the caller wants to be asked about.
    """

    id: str
    asked: Mapping[str, Any]
    created: int = 0
    background: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    asks: frozenset[str] = frozenset()
    began: bool = False
    model: str = ""
    outputs: list[Output] = field(default_factory=list)
    status: str = "in_progress"
    cut: str = ""
    spent: Spent | None = None
    error: MeshError | None = None
    _spoken: Output | None = None
    _calls: dict[int, Output] = field(default_factory=dict)

    def take(self, piece: object) -> Sequence[Event]:
        """The events that tell it."""
        return list(self._taken(piece))

    def _taken(self, piece: object) -> Iterator[Event]:
        match piece:
            case Began(_, model):
                self.began, self.model, self.status = True, model, "in_progress"
            case Said(said):
                yield from self._add(self._spoken or self._speak(), said)
            case Used(index, arguments):
                output = self._calls.get(index) or self._call(piece)
                yield from self._add(output, arguments)
            case Listed(label, tools):
                yield from self._close(self._new("mcp_list_tools", label=label, tools=tools))
            case Ran(index, result, failure):
                output = self._calls[index]
                output.result, output.failure = result, failure
                yield from self._close(output)
            case Turned():
                self._spoken = None
                yield from self._close(*self.outputs)
            case Ended(reason, spent):
                self.cut = _CUT.get(reason, "")
                self.status = "incomplete" if self.cut else "completed"
                self.spent = spent
                yield from self._close(*self.outputs)

    def fail(self, error: MeshError) -> None:
        self.status, self.error = "cancelled" if error.reason_name == "GENERATION_CANCELLED" else "failed", error

    def body(self) -> Mapping[str, Any]:
        done = self.status not in UNDONE
        return {
            **self.asked,
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": self.status,
            "background": self.background,
            "error": _error(self.error) if self.status == "failed" and self.error else None,
            "incomplete_details": {"reason": self.cut} if self.cut else None,
            "model": self.model or self.asked["model"],
            "output": [output.item(done=True) for output in self.outputs] if done else [],
            "usage": _usage(self.spent) if self.spent else None,
        }

    def _speak(self) -> Output:
        self._spoken = self._new("message")
        return self._spoken

    def _call(self, used: Used) -> Output:
        label = self.labels.get(used.name, "")
        mesh = "mcp_approval_request" if used.name in self.asks and not used.approval else "mcp_call"
        made = self._new(
            mesh if label else "function_call", call_id=used.id, name=used.name, label=label, approved=used.approval
        )
        self._calls[used.index] = made
        return made

    def _new(self, kind: str, **given: Any) -> Output:
        place = sum(one.kind == kind for one in self.outputs)
        self.outputs.append(Output(kind, self.id, place, **given))
        return self.outputs[-1]

    def _add(self, output: Output, piece: str) -> Iterator[Event]:
        yield from self._open(output)
        output.text += piece
        yield from output.grown(self.outputs.index(output), piece)

    def _open(self, output: Output) -> Iterator[Event]:
        if not output.open:
            output.open = True
            yield from output.opened(self.outputs.index(output))

    def _close(self, *outputs: Output) -> Iterator[Event]:
        for output in outputs:
            if not output.closed:
                yield from self._open(output)
                output.closed = True
                yield from output.done(self.outputs.index(output))


Keep = Callable[[Response], Awaitable[bool]]
"""Keeps what came of it. False: it has not ended, it only cannot be read on."""


async def complete(response: Response, pieces: Pieces) -> None:
    """Takes all of it. Raises what the pieces raise."""
    async with aclosing(pieces):
        async for piece in pieces:
            response.take(piece)


async def so_far(response: Response, pieces: Pieces, *, first: timedelta | None) -> None:
    """Takes what has come: what is there already comes at once, where it begins within `first`, or whenever it does."""
    patience = first.total_seconds() if first else None
    async with aclosing(pieces):
        try:
            while True:
                async with asyncio.timeout(_PATIENCE_SECONDS if response.began else patience):
                    response.take(await anext(pieces))
        except (TimeoutError, StopAsyncIteration):
            pass
        except MeshError as error:
            if not response.began and first is None:
                raise
            response.fail(error)


async def events(response: Response, pieces: Pieces, keep: Keep, *, after: int = -1) -> AsyncGenerator[bytes, None]:
    """The response as events, each with its sequence_number; only those after the one given. It is kept before its last
    is shown.
    """
    number = -1
    async with aclosing(_events(response, pieces, keep)) as found:
        async for kind, data in found:
            number += 1
            if number > after:
                yield http.event(http.text({"type": kind, "sequence_number": number, **data}), name=kind)


async def _events(response: Response, pieces: Pieces, keep: Keep) -> AsyncGenerator[Event, None]:
    if response.background:
        response.status = "queued"
        for kind in ("created", "queued"):
            yield f"response.{kind}", {"response": response.body()}
    try:
        async with aclosing(pieces):
            async for piece in pieces:
                told = response.take(piece)
                if isinstance(piece, Began):
                    for kind in ("in_progress",) if response.background else ("created", "in_progress"):
                        yield f"response.{kind}", {"response": response.body()}
                for event in told:
                    yield event
    except MeshError as error:
        if not response.began and not response.background:
            raise
        response.fail(error)
        if not await keep(response):
            raise
    await keep(response)
    ended = "failed" if response.status == "cancelled" else response.status
    yield f"response.{ended}", {"response": response.body()}


def _error(error: MeshError) -> Mapping[str, Any]:
    """OpenAI knows few codes here."""
    code = "rate_limit_exceeded" if error.code is StatusCode.RESOURCE_EXHAUSTED else "server_error"
    return {"code": code, "message": error.message}


def _usage(spent: Spent) -> Mapping[str, Any]:
    return {
        "input_tokens": spent.input,
        "input_tokens_details": {"cached_tokens": spent.cached},
        "output_tokens": spent.output,
        "output_tokens_details": {"reasoning_tokens": spent.reasoning},
        "total_tokens": spent.total,
    }
