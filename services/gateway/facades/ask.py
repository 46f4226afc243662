"""What a caller of any protocol asks of a model or an agent, and what comes back, piece by piece."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from shared.errors import Aborted, InvalidArgument
from shared.errors import Reason as ErrorReason


class Role(StrEnum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class Image:
    """A picture: an https address, or data of a media type in base64."""

    url: str = ""
    media_type: str = ""
    data: str = ""


@dataclass(frozen=True, slots=True)
class Clip:
    """A sound, a film or a document ("audio", "video", "document"): an https address, or data in base64."""

    kind: str
    media_type: str = ""
    data: str = ""
    url: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A call the model asked for; the arguments are JSON text."""

    id: str
    name: str
    arguments: str


Part = str | Image | Clip


@dataclass(frozen=True, slots=True)
class Message:
    """One message. `answers` is the id of the tool use a tool's message answers."""

    role: Role
    parts: tuple[Part, ...]
    name: str = ""
    uses: tuple[ToolUse, ...] = ()
    answers: str = ""

    @property
    def text(self) -> str:
        return "".join(part for part in self.parts if isinstance(part, str))


@dataclass(frozen=True, slots=True)
class Tool:
    """A function of the caller's that the model may ask for."""

    name: str
    description: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Ask:
    """One call. `tool_choice` is "auto", "none", "required" or a tool's name; `schema` what the answer must fit. A
    `whole` one is read when it is over, so that what it was begun with may be void.
    """

    model: str
    messages: tuple[Message, ...]
    max_tokens: int = 0
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    schema: Mapping[str, Any] | None = None
    effort: str = ""
    generation_id: str = ""
    whole: bool = False


class Reason(StrEnum):
    """Why it ended."""

    STOP = "stop"
    LENGTH = "length"
    FILTER = "filter"
    TOOLS = "tools"


@dataclass(frozen=True, slots=True)
class Spent:
    """Tokens of one call."""

    input: int = 0
    output: int = 0
    cached: int = 0
    reasoning: int = 0

    @property
    def total(self) -> int:
        return self.input + self.output

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.input + other.input,
            self.output + other.output,
            self.cached + other.cached,
            self.reasoning + other.reasoning,
        )


@dataclass(frozen=True, slots=True)
class Began:
    """The first piece: its id, who really answers, and when that began in seconds since 1970."""

    id: str
    model: str
    created: int = 0
    input_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Said:
    """Text."""

    text: str


@dataclass(frozen=True, slots=True)
class Used:
    """A piece of a tool use: the first of an index has its id and name, each has more of its arguments. `approval` is
    what allowed a call that the caller was asked about.
    """

    index: int
    arguments: str
    id: str = ""
    name: str = ""
    approval: str = ""


@dataclass(frozen=True, slots=True)
class Listed:
    """The mesh's tools that the model may call, as the caller is told them, under its name for the mesh."""

    label: str
    tools: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Ran:
    """A call of one of the mesh's tools ended: with what it said, or with why it failed."""

    index: int
    result: str | None
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class Turned:
    """The model is asked again, with what its calls brought: what it says from now on is another item."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The last piece."""

    reason: Reason
    spent: Spent = field(default_factory=Spent)


Piece = Began | Said | Used | Listed | Ran | Turned | Ended
Pieces = AsyncGenerator[Piece, None]


class Answerer(Protocol):
    """A model or an agent."""

    def answer(self, ask: Ask) -> Pieces:
        """The pieces, `Began` first and `Ended` last. Raises MeshError, before the first piece or between two."""


class Unsupported(InvalidArgument):
    """The protocol has it and the mesh cannot honour it."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field} {why}", field=field)


class AnswerUndone(Aborted):
    """What was shown is void, and the protocol has no way to say so. Ask again."""

    reason = ErrorReason.ERROR_REASON_STREAM_BROKEN


@dataclass(frozen=True, slots=True)
class Whole:
    """An answer in one piece."""

    began: Began
    text: str
    uses: tuple[ToolUse, ...]
    ended: Ended


async def whole(pieces: Pieces) -> Whole:
    """Waits for all of it. Raises what the pieces raise."""
    began, ended = Began("", ""), Ended(Reason.STOP)
    texts: list[str] = []
    uses: dict[int, ToolUse] = {}
    async for piece in pieces:
        match piece:
            case Began():
                began = piece
            case Said(text):
                texts.append(text)
            case Used(index, arguments, use_id, name):
                known = uses.get(index, ToolUse(use_id, name, ""))
                uses[index] = ToolUse(known.id, known.name, known.arguments + arguments)
            case Ended():
                ended = piece
    return Whole(began, "".join(texts), tuple(uses[index] for index in sorted(uses)), ended)
