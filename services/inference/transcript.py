"""What a generation has produced so far: the raw output of the model, and how much of it was shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from services.inference.providers.contract import (
    Chunk,
    FinishReason,
    ModelCall,
    ToolCall,
    ToolCalls,
    Usage,
)
from shared.clock import Clock

_ALL: Final = "surrogatepass"  # half a pair that a model wrote is no error here
_MARGIN: Final = 256
_BYTES, _TOKENS = 40, 9  # of prose; the estimator of tokenizers.py says the same, and more of signs and numbers


@dataclass(frozen=True, slots=True)
class Written:
    """All that an attempt's model wrote, in how many pieces it came, and what its provider said of its usage."""

    text: str
    pieces: int
    usage: Usage | None = None

    @property
    def counted(self) -> int:
        """Its tokens, about."""
        return believed(self.pieces, _estimated(len(self.text.encode())))


def believed(pieces: int, estimate: int) -> int:
    """Tokens of what came in so many pieces. A piece mostly is a token, and no estimate comes as near; only what is
    beyond an estimate's own error tells that pieces were packed.
    """
    return pieces if 2 * estimate <= 3 * pieces + 1 else estimate  # the one is rounding


def _estimated(size: int) -> int:
    return size * _TOKENS // _BYTES


@dataclass(slots=True)
class Transcript:
    """One generation. `begin` starts an attempt; what earlier attempts spent is kept."""

    reasoning_shown: bool = False
    tools_shown: list[ToolCall] = field(default_factory=list)
    first_token_at: datetime | None = None
    finish: FinishReason = FinishReason.STOP
    recorded: bool = False
    """Whether this attempt was answered by a recording."""
    _call: ModelCall | None = None
    _raw: bytearray = field(default_factory=bytearray)  # a list of pieces would be ten times the text
    _shown: bytearray = field(default_factory=bytearray)
    _written: bytearray = field(default_factory=bytearray)  # of this attempt, with thoughts and calls of tools
    _pieces: int = 0
    _usage: Usage | None = None
    _tools: ToolCalls = field(default_factory=ToolCalls)
    _spent: list[Usage] = field(default_factory=list)

    @property
    def shown(self) -> str:
        """The text that readers were given."""
        return self._shown.decode(errors=_ALL)

    @property
    def anything_shown(self) -> bool:
        return bool(self._shown or self.reasoning_shown or self.tools_shown)

    @property
    def begun(self) -> bool:
        """Whether the model said anything, shown or held back."""
        return bool(self._raw or self._pieces or self.anything_shown)

    @property
    def raw(self) -> str:
        """The model's text, held-back characters included."""
        return self._raw.decode(errors=_ALL)

    @property
    def counted(self) -> int:
        """Output tokens of this attempt so far, about."""
        return believed(self._pieces, _estimated(len(self._written)))

    @property
    def call(self) -> ModelCall | None:
        """What this attempt was asked."""
        return self._call

    @property
    def written(self) -> Written:
        """What there is to count this attempt by."""
        return Written(self._written.decode(errors="replace"), self._pieces, self._usage)

    def over(self, most: int) -> bool:
        """Whether the provider keeps to no limit of output tokens: it is left, and that is the limit. Pieces of less
        than a token are no fault, so it may say twice as much.
        """
        if self._pieces <= 2 * most + _MARGIN or (self._usage and not self._usage.estimated):
            return False
        self.finish = FinishReason.LENGTH
        return True

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """What this attempt asks for, whole only when it has ended."""
        return self._tools.whole()

    def begin(self, call: ModelCall, *, restarted: bool) -> None:
        """A new attempt; a restarted one voids what was shown."""
        self._call, self._pieces, self._usage, self.recorded = call, 0, None, False
        self._written = bytearray()
        self._tools = ToolCalls()
        if restarted:
            self.reasoning_shown, self.tools_shown = False, []
            self._raw, self._shown = bytearray(), bytearray()

    def take(self, chunk: Chunk, clock: Clock) -> None:
        if chunk.token_count and self.first_token_at is None:
            self.first_token_at = clock.now()
        if chunk.text:
            said = chunk.text.encode(errors=_ALL)
            self._raw += said
            if chunk.written is None:
                self._written += said
        if chunk.tools:
            self._tools.feed(chunk.tools)
        if chunk.reasoning or chunk.tools or chunk.written:
            self._written += _beside(chunk).encode(errors=_ALL)
        self._pieces += chunk.token_count
        self.recorded |= chunk.recorded
        self._usage = chunk.usage or self._usage
        self.finish = chunk.finish_reason or self.finish

    def show(self, text: str) -> None:
        self._shown += text.encode(errors=_ALL)

    def end(self, usage: Usage) -> None:
        """The attempt is over, and this is what it spent."""
        self._spent.append(usage)

    def spent(self) -> Usage:
        """What all attempts spent."""
        if len(self._spent) == 1:
            return self._spent[0]
        return Usage(
            input_tokens=sum(usage.input_tokens for usage in self._spent),
            output_tokens=sum(usage.output_tokens for usage in self._spent),
            cached_input_tokens=sum(usage.cached_input_tokens for usage in self._spent),
            reasoning_tokens=sum(usage.reasoning_tokens for usage in self._spent),
            estimated=any(usage.estimated for usage in self._spent),
            audio_input_tokens=sum(usage.audio_input_tokens for usage in self._spent),
        )


def _beside(chunk: Chunk) -> str:
    """What the model wrote beside the text."""
    if chunk.written is not None:
        return chunk.reasoning + chunk.written
    return chunk.reasoning + "".join(tool.name + tool.arguments for tool in chunk.tools)
