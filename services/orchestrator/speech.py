"""What the state of a session knows of single turns: said, in flight, broken off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, TypeVar

from agentnet.common.v1 import failure_pb2
from agentnet.orchestrator.v1 import event_pb2, input_pb2, progress_pb2, turn_pb2

# Phases whose turns are ballots, lists and directions, and no part of the conversation.
_FORMAL: Final = ("vote", "points", "judgement", "plan")
One = TypeVar("One")


def changed(one: One, **changes: Any) -> One:
    """A copy with other values: dataclasses.replace at a tenth of its cost, for a class without slots whose fields are
    not checked when it is made.
    """
    copy: One = object.__new__(type(one))
    copy.__dict__.update(one.__dict__, **changes)
    return copy


def formal(phase: str) -> bool:
    """Whether a turn of this phase only serves the course of its session."""
    return phase in _FORMAL or phase.endswith(":floor")


@dataclass(frozen=True, slots=True)
class Spoken:
    """A finished turn, or what a person said, as far as the next turn needs it."""

    turn_id: str
    round: int
    agent: str
    content: str
    phase: str = ""

    @property
    def formal(self) -> bool:
        """Whether it only serves the course of the session."""
        return formal(self.phase)

    @property
    def by_person(self) -> bool:
        return self.phase == "message"


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a tool. `result` is None until it ended; `input_id` is the person's answer it waits for, the last of
    `asks`; `rules` of policy hold it until then.
    """

    request_id: str
    call_id: str
    tool: str
    arguments: str
    digest: str
    iteration: int
    result: str | None = None
    failed: bool = False
    input_id: str = ""
    answer: event_pb2.InputGiven | None = None
    asks: int = 0
    rules: tuple[str, ...] = ()

    @property
    def waits(self) -> bool:
        """Whether only a person can move it on."""
        return self.result is None and bool(self.input_id) and self.answer is None


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A turn whose last try broke off, with the text of that try. `input_id` is the person's answer it waits for,
    where rules of policy held it; `override_id` excuses it from some.
    """

    turn_id: str
    round: int
    agent: str
    attempt: int
    failure: failure_pb2.Failure
    phase: str = ""
    text: str = ""
    input_id: str = ""
    answer: event_pb2.InputGiven | None = None
    override_id: str = ""

    @property
    def waits(self) -> bool:
        """Whether only a person can move it on."""
        return bool(self.input_id) and self.answer is None

    @property
    def allowed(self) -> bool:
        """Whether a person let it go on."""
        return self.answer is not None and self.answer.approved


@dataclass(frozen=True)
class Speaking:
    """A turn in flight. `heard` is the last event of the generation of its `iteration` that is in the log.

    `mark` is where in `text` that generation begins; `earlier` are the texts of the iterations before. Without slots:
    copied at every token.
    """

    turn_id: str
    round: int
    agent: str
    attempt: int
    prompt: str
    context: turn_pb2.TurnContext
    started_at: datetime
    text: str = ""
    heard: int = 0
    phase: str = ""
    messages: tuple[tuple[str, str], ...] = ()
    max_iterations: int = 1
    iteration: int = 1
    mark: int = 0
    earlier: tuple[str, ...] = ()
    calls: tuple[Call, ...] = ()
    input_tokens: int = 0
    output_tokens: int = 0
    cost_micros_usd: int = 0
    verdicts: int = 0
    override_id: str = ""

    @property
    def key(self) -> tuple[str, str]:
        return self.agent, self.phase

    @property
    def latest(self) -> str:
        """The text of the iteration under way."""
        return self.text[self.mark :]

    @property
    def open(self) -> tuple[Call, ...]:
        """Calls that have not ended."""
        return tuple(call for call in self.calls if call.result is None)

    @property
    def blocked(self) -> bool:
        """Whether only a person can move it on."""
        return bool(self.open) and all(call.waits for call in self.open)

    @property
    def generation_id(self) -> str:
        """The generation of the iteration under way."""
        first = f"{self.turn_id}-{self.attempt}"
        return first if self.iteration == 1 else f"{first}-{self.iteration}"

    def said(self, text: str, sequence: int) -> Speaking:
        return changed(self, text=self.text + text, heard=max(self.heard, sequence))

    def judged(self, sequence: int) -> Speaking:
        """Policy acted on its prompt or its text."""
        return changed(self, heard=max(self.heard, sequence), verdicts=self.verdicts + 1)

    def iterated(self, progress: progress_pb2.Progressed) -> Speaking:
        """The model asked for tools; it will be called again."""
        return changed(
            self,
            iteration=progress.iteration + 1,
            heard=0,
            mark=len(self.text),
            earlier=(*self.earlier, self.latest),
            input_tokens=progress.usage.input_tokens,
            output_tokens=progress.usage.output_tokens,
            cost_micros_usd=progress.cost_micros_usd,
        )

    def called(self, made: turn_pb2.ToolCallMade) -> Speaking:
        call = Call(made.request_id, made.call_id, made.tool, made.arguments, made.arguments_digest, made.iteration)
        return changed(self, calls=(*self.calls, call))

    def answered(self, finished: event_pb2.ToolFinished) -> Speaking:
        result, failed = finished.outcome.result, finished.HasField("failure")
        return self._changed(finished.call.request_id, lambda call: replace(call, result=result, failed=failed))

    def asked(self, asked: input_pb2.HumanInput) -> Speaking:
        rules = tuple(asked.rules)
        return self._changed(
            asked.request_id,
            lambda call: replace(call, input_id=asked.id, answer=None, asks=call.asks + 1, rules=rules),
        )

    def told(self, given: event_pb2.InputGiven) -> Speaking:
        calls = tuple(replace(call, answer=given) if call.input_id == given.input_id else call for call in self.calls)
        return changed(self, calls=calls)

    def broken(self, failure: failure_pb2.Failure) -> Interrupted:
        return Interrupted(
            self.turn_id, self.round, self.agent, self.attempt, failure, self.phase, self.latest,
            override_id=self.override_id,
        )  # fmt: skip

    def _changed(self, request_id: str, change: Callable[[Call], Call]) -> Speaking:
        calls = tuple(change(call) if call.request_id == request_id else call for call in self.calls)
        return changed(self, calls=calls)
