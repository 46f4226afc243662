"""What every provider can do: stream a call. Everything else is made of that."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, Protocol


class Role(StrEnum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class FinishReason(StrEnum):
    STOP = "stop"
    LENGTH = "length"
    CONTENT_FILTER = "content_filter"
    TOOL_CALLS = "tool_calls"


class MediaKind(StrEnum):
    IMAGE = "image"
    AUDIO = "audio"
    VIDEO = "video"


class ToolMode(StrEnum):
    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"


class ReasoningEffort(StrEnum):
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


@dataclass(frozen=True, slots=True)
class Text:
    """Plain text."""

    text: str


@dataclass(frozen=True, slots=True)
class Media:
    """A picture, a sound or a film, given or (not sounds) pointed at."""

    kind: MediaKind
    media_type: str
    data: bytes = b""
    url: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """What the model asks for; arguments are JSON as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool answered to a call."""

    tool_call_id: str
    content: str
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """A picture of a film, and when in it."""

    media: Media
    at: timedelta


@dataclass(frozen=True, slots=True)
class Film:
    """A film, whole, as pictures, or both. Providers never see one: films.py gives them what their model takes."""

    media: Media | None
    frames: tuple[Frame, ...] = ()
    name: str = ""


Part = Text | Media | Film | ToolCall | ToolResult


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a prompt."""

    role: Role
    parts: tuple[Part, ...]
    name: str = ""

    @property
    def text(self) -> str:
        """All that stands in it as text."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def media(self) -> tuple[Media, ...]:
        return tuple(part for part in self.parts if isinstance(part, Media))

    @property
    def films(self) -> tuple[Film, ...]:
        return tuple(part for part in self.parts if isinstance(part, Film))

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        return tuple(part for part in self.parts if isinstance(part, ToolCall))

    @property
    def tool_results(self) -> tuple[ToolResult, ...]:
        return tuple(part for part in self.parts if isinstance(part, ToolResult))


def said(role: Role, text: str, *, name: str = "") -> Message:
    """A message of text alone."""
    return Message(role, (Text(text),), name)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. None is left to the provider."""

    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """A tool the model may ask for."""

    name: str
    description: str
    input_schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """How free the model is to call tools; a name binds it to one."""

    mode: ToolMode = ToolMode.AUTO
    name: str = ""


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """The JSON Schema the whole output must fit."""

    name: str
    json_schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long a call may take: to connect, to its first event, between two reads, in all."""

    connect: timedelta = timedelta(seconds=5)
    first_token: timedelta = timedelta(seconds=60)
    idle: timedelta = timedelta(seconds=30)
    total: timedelta = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One call, in the provider's own name for the model."""

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling
    max_output_tokens: int
    tools: tuple[ToolDefinition, ...] = ()
    tool_choice: ToolChoice = field(default_factory=ToolChoice)
    response_format: ResponseFormat | None = None
    reasoning_effort: ReasoningEffort | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens spent. Estimated when the provider did not say; of what it said in part, 0 is what it left out."""

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False
    audio_input_tokens: int = 0
    """Of the input tokens, those of sounds: they have a price of their own."""


@dataclass(frozen=True, slots=True)
class ToolDelta:
    """A piece of a tool call. The first of an index names the tool; arguments are joined in order."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one read of the stream brought. The last one has the reason. Usage comes with it or not at all; what is
    known of it before is marked as estimated.
    """

    text: str = ""
    token_count: int = 0
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    reasoning: str = ""
    tools: tuple[ToolDelta, ...] = ()
    written: str | None = field(default=None, compare=False)
    """What the model wrote, where that is not what it says here; it is what is paid for."""
    recorded: bool = field(default=False, compare=False)
    """It is a recording's: no provider was asked, and nobody is paid."""

    @property
    def says(self) -> bool:
        """Whether it is of the answer, not only of what that is made of."""
        return bool(self.text or self.reasoning or self.tools or self.finish_reason)


@dataclass(frozen=True, slots=True)
class ProviderResult:
    """A whole answer."""

    text: str
    finish_reason: FinishReason
    usage: Usage
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()


class Provider(Protocol):
    """One provider. Raises the errors of services.inference.errors, whatever its wire format says."""

    @property
    def name(self) -> str:
        """Its name in prices and records."""

    def stream(self, call: ModelCall) -> AsyncGenerator[Chunk, None]:
        """Streams one call. Closing the iterator closes the call at the provider."""


async def infer(provider: Provider, call: ModelCall) -> ProviderResult:
    """One call, whole."""
    text: list[str] = []
    thought: list[str] = []
    tools = ToolCalls()
    finish, usage, counted = FinishReason.STOP, None, 0
    async for chunk in provider.stream(call):
        text.append(chunk.text)
        thought.append(chunk.reasoning)
        tools.feed(chunk.tools)
        counted += chunk.token_count
        finish = chunk.finish_reason or finish
        usage = chunk.usage or usage
    counts = usage or Usage(estimate_input(call), counted, estimated=True)
    return ProviderResult("".join(text), finish, counts, "".join(thought), tools.whole())


class ToolCalls:
    """Tool calls put together from their pieces. Some servers give every call the index 0: a name with another id is
    another call all the same.
    """

    def __init__(self) -> None:
        self._calls: dict[int, ToolCall] = {}
        self._places: dict[int, int] = {}
        """Where the call stands that an index means by now."""

    def feed(self, deltas: tuple[ToolDelta, ...]) -> None:
        for delta in deltas:
            place = self._places.get(delta.index, delta.index)
            held = self._calls.get(place, ToolCall("", "", ""))
            if delta.name and held.id and delta.id not in ("", held.id):
                place, held = max(self._calls) + 1, ToolCall("", "", "")
            self._places[delta.index] = place
            self._calls[place] = ToolCall(
                delta.id or held.id, delta.name or held.name, held.arguments + delta.arguments
            )

    def whole(self) -> tuple[ToolCall, ...]:
        """The calls by index; those without an id of the provider's get one by their place."""
        return tuple(
            ToolCall(call.id or f"call_{index}", call.name, call.arguments or "{}")
            for index, call in sorted(self._calls.items())
        )


_MEDIA_TOKENS = 512
_FILM_TOKENS = 8192


def estimate_input(call: ModelCall) -> int:
    """Tokens of a prompt before anyone counted: four characters a token, four tokens a message, rounded up."""
    return sum(4 + _estimate(message) for message in call.messages) + estimate_tools(call)


def estimate_tools(call: ModelCall) -> int:
    """Of these the tokens of the tools it offers."""
    return sum(-(-len(tool.description + str(tool.input_schema)) // 4) for tool in call.tools)


def _estimate(message: Message) -> int:
    written = len(message.text)
    written += sum(len(tool.name) + len(tool.arguments) for tool in message.tool_calls)
    written += sum(len(result.content) for result in message.tool_results)
    seen = _MEDIA_TOKENS * len(message.media)
    seen += sum(max(_MEDIA_TOKENS * len(film.frames), _FILM_TOKENS if film.media else 0) for film in message.films)
    return -(-written // 4) + seen
