"""What every provider can do: stream a call. Everything else is made of that."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Role(StrEnum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class FinishReason(StrEnum):
    STOP = "stop"
    LENGTH = "length"
    CONTENT_FILTER = "content_filter"


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a prompt."""

    role: Role
    text: str
    name: str = ""


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
class ModelCall:
    """One call, in the provider's own name for the model."""

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling
    max_output_tokens: int


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens spent. Estimated when the provider did not say."""

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one read of the stream brought. The last one has the reason; usage comes with it or not at all."""

    text: str = ""
    token_count: int = 0
    finish_reason: FinishReason | None = None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class ProviderResult:
    """A whole answer."""

    text: str
    finish_reason: FinishReason
    usage: Usage


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
    finish, usage, counted = FinishReason.STOP, None, 0
    async for chunk in provider.stream(call):
        text.append(chunk.text)
        counted += chunk.token_count
        finish = chunk.finish_reason or finish
        usage = chunk.usage or usage
    return ProviderResult("".join(text), finish, usage or Usage(estimate_input(call), counted, estimated=True))


def estimate_input(call: ModelCall) -> int:
    """Tokens of a prompt before anyone counted: four characters a token and four tokens a message, rounded up."""
    return sum(4 + -(-len(message.text) // 4) for message in call.messages)
