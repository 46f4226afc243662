"""A response in rounds: the mesh's tools that the model asks for are run, and it is told what they brought."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from mcp import types

from services.gateway.facades.ask import (
    Ask,
    Began,
    Ended,
    Listed,
    Message,
    Piece,
    Pieces,
    Ran,
    Reason,
    Role,
    Said,
    Spent,
    Tool,
    ToolUse,
    Turned,
    Unsupported,
    Used,
)  # fmt: skip
from services.gateway.facades.openai_input import Approved, MeshTools, ResponseRequest

# Rounds with tools at most; the model then answers without.
_MOST_ROUNDS: Final = 16
_MOST_TOOLS: Final = 128


class Offer(Protocol):
    """The mesh's tools, as whoever calls may have them."""

    async def tools(self) -> list[types.Tool]: ...

    async def call(self, name: str, arguments: Mapping[str, Any], *, key: str) -> types.CallToolResult:
        """A failure is a result too. `key` names the effect: again, it is the first one's outcome."""


@dataclass(frozen=True, slots=True)
class Within:
    """The mesh's tools in one request: those offered, and of them those the caller wants to be asked about."""

    mesh: MeshTools
    tools: tuple[types.Tool, ...]

    @property
    def asks(self) -> frozenset[str]:
        return frozenset(tool.name for tool in self.tools if self.mesh.wants_to_know(tool.name))

    @property
    def labels(self) -> Mapping[str, str]:
        return {tool.name: self.mesh.label for tool in self.tools}


async def within(offer: Offer, request: ResponseRequest) -> Within | None:
    """None: it names none. Raises InvalidArgument for a tool that is not there."""
    if request.mesh is None:
        return None
    offered = {tool.name: tool for tool in await offer.tools()}
    names = request.mesh.allowed or frozenset(offered)
    for name in sorted(names - offered.keys()):
        raise Unsupported("tools", f"name {name}, which is no tool of this mesh")
    if clash := names & {tool.name for tool in request.ask.tools}:
        raise Unsupported("tools", f"name {min(clash)} twice")
    if len(names) > _MOST_TOOLS:
        raise Unsupported("tools", f"are more than {_MOST_TOOLS}; name them in allowed_tools")
    return Within(request.mesh, tuple(offered[name] for name in sorted(names)))


def round_id(generation_id: str, number: int) -> str:
    """Which generation a round is; of 0, the response's own."""
    return f"{generation_id}-{number}" if number else generation_id


@dataclass(slots=True)
class Rounds:
    """One response. `answer` asks the model."""

    request: ResponseRequest
    tools: Within
    offer: Offer
    answer: Callable[[Ask], Pieces]
    spent: Spent = field(default_factory=Spent)
    calls: int = 0
    index: int = 0

    @property
    def first(self) -> Ask:
        """What the model is asked, where nothing was approved before."""
        return replace(self.request.ask, tools=(*self.request.ask.tools, *map(_tool, self.tools.tools)))

    async def pieces(self) -> Pieces:
        """Its pieces, each round's calls by an index of their own. Raises what answering raises."""
        ask = self.first
        first: tuple[Piece, ...] = (Listed(self.tools.mesh.label, tuple(map(_shown, self.tools.tools))),)
        if self.request.approved:
            told, messages = await self._approved(self.request.approved)
            ask, first = replace(ask, messages=(*ask.messages, *messages)), (*first, *told)
        for number in range(_MOST_ROUNDS + 1):
            last = number == _MOST_ROUNDS or (self.request.most_calls or _MOST_ROUNDS * _MOST_TOOLS) <= self.calls
            turn = Turn(replace(ask, tool_choice="none") if last else ask, self.index)
            async with aclosing(turn.pieces(self.answer)) as found:
                async for piece in found:
                    if not isinstance(piece, Began):
                        yield piece
                    elif number == 0:
                        for one in (piece, *first):
                            yield one
            self.spent += turn.spent
            due = {
                index: use for index, use in turn.uses.items() if use.name in self.tools.labels.keys() - self.tools.asks
            }
            for ran in await self._run(due):
                yield ran
                turn.results[ran.index] = ran
            if not due or len(due) < len(turn.uses) or last:
                yield Ended(turn.reason, self.spent)
                return
            yield Turned()
            ask = replace(
                ask, messages=(*ask.messages, *turn.said()), tool_choice="auto",
                generation_id=round_id(self.request.ask.generation_id, number + 1),
            )  # fmt: skip
            self.index += len(turn.uses)

    async def _approved(self, approved: Sequence[Approved]) -> tuple[tuple[Piece, ...], Sequence[Message]]:
        """Runs what the caller allowed: what is told of it, and what the model is."""
        turn = Turn(self.request.ask, self.index)
        turn.uses = {index: one.use for index, one in enumerate(approved)}
        turn.results = {ran.index: ran for ran in await self._run(turn.uses)}
        self.index = len(approved)
        told: list[Piece] = []
        for index, one in enumerate(approved):
            told.append(Used(index, one.use.arguments, one.use.id, one.use.name, one.request_id))
            told.append(turn.results[index])
        return (*told, Turned()), turn.said()

    async def _run(self, due: Mapping[int, ToolUse]) -> Sequence[Ran]:
        self.calls += len(due)
        return await asyncio.gather(*(self._ran(index, use) for index, use in due.items()))

    async def _ran(self, index: int, use: ToolUse) -> Ran:
        try:
            arguments = json.loads(use.arguments or "{}")
        except ValueError:
            arguments = None
        if not isinstance(arguments, dict):
            return Ran(index, None, "the arguments are no JSON object")
        result = await self.offer.call(use.name, arguments, key=f"{self.request.ask.generation_id}-call{index}")
        text = "".join(part.text for part in result.content if isinstance(part, types.TextContent))
        return Ran(index, None, text) if result.is_error else Ran(index, text)


@dataclass(slots=True)
class Turn:
    """One round: what the model said and asked for."""

    ask: Ask
    offset: int
    texts: list[str] = field(default_factory=list)
    uses: dict[int, ToolUse] = field(default_factory=dict)
    results: dict[int, Ran] = field(default_factory=dict)
    reason: Reason = Reason.STOP
    spent: Spent = field(default_factory=Spent)

    async def pieces(self, answer: Callable[[Ask], Pieces]) -> AsyncGenerator[Piece, None]:
        """All but its end."""
        async with aclosing(answer(self.ask)) as found:
            async for piece in found:
                match piece:
                    case Ended(reason, spent):
                        self.reason, self.spent = reason, spent
                        continue
                    case Said(text):
                        self.texts.append(text)
                    case Used(index, arguments, use_id, name):
                        known = self.uses.get(self.offset + index, ToolUse(use_id, name, ""))
                        self.uses[self.offset + index] = replace(known, arguments=known.arguments + arguments)
                        yield replace(piece, index=self.offset + index)
                        continue
                yield piece

    def said(self) -> Sequence[Message]:
        """As the model is told it in the next round."""
        text = "".join(self.texts)
        results = [
            Message(Role.TOOL, (ran.failure or ran.result or "",), answers=self.uses[index].id)
            for index, ran in self.results.items()
        ]
        return [Message(Role.ASSISTANT, (text,) if text else (), uses=tuple(self.uses.values())), *results]


def _tool(tool: types.Tool) -> Tool:
    return Tool(tool.name, tool.description or "", tool.input_schema)


def _shown(tool: types.Tool) -> Mapping[str, Any]:
    hints = tool.annotations.model_dump(by_alias=True, exclude_none=True) if tool.annotations else None
    named = {"name": tool.name, "description": tool.description}
    return {**named, "input_schema": tool.input_schema, "annotations": hints}
