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
    estimate_input,
)
from shared.clock import Clock

_ALL: Final = "surrogatepass"  # half a pair that a model wrote is no error here
_MARGIN: Final = 256


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
    _counted: int = 0
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
        return bool(self._raw or self._counted or self.anything_shown)

    @property
    def raw(self) -> str:
        """The model's text, held-back characters included."""
        return self._raw.decode(errors=_ALL)

    @property
    def counted(self) -> int:
        """Output tokens of this attempt."""
        return self._counted

    def over(self, most: int) -> bool:
        """Whether the provider keeps to no limit of output tokens: it is left, and that is the limit. Pieces of less
        than a token are no fault, so it may say twice as much.
        """
        if self.counted <= 2 * most + _MARGIN or self._usage:
            return False
        self.finish = FinishReason.LENGTH
        return True

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """What this attempt asks for, whole only when it has ended."""
        return self._tools.whole()

    def begin(self, call: ModelCall, *, restarted: bool) -> None:
        """A new attempt; a restarted one voids what was shown."""
        self._call, self._counted, self._usage, self.recorded = call, 0, None, False
        self._tools = ToolCalls()
        if restarted:
            self.reasoning_shown, self.tools_shown = False, []
            self._raw, self._shown = bytearray(), bytearray()

    def take(self, chunk: Chunk, clock: Clock) -> None:
        if chunk.token_count and self.first_token_at is None:
            self.first_token_at = clock.now()
        if chunk.text:
            self._raw += chunk.text.encode(errors=_ALL)
        if chunk.tools:
            self._tools.feed(chunk.tools)
        self._counted += chunk.token_count
        self.recorded |= chunk.recorded
        self._usage = chunk.usage or self._usage
        self.finish = chunk.finish_reason or self.finish

    def show(self, text: str) -> None:
        self._shown += text.encode(errors=_ALL)

    def end(self, *, free: bool) -> Usage:
        """What the attempt spent: as the provider says, else as counted; nothing when it was refused."""
        usage = self._usage or Usage(0, 0)
        if self._usage is None and not (free and not self._counted):
            asked = estimate_input(self._call) if self._call else 0
            usage = Usage(asked, self._counted, estimated=True)
        self._spent.append(usage)
        return usage

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
