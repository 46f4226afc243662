"""The state of a session: a pure fold over its log. Any prefix folds to the state the live session had there.

The log's event is the contract's own message; the state speaks of it directly and keeps no second vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from agentnet.common.v1 import failure_pb2
from agentnet.orchestrator.v1 import event_pb2, session_pb2


@dataclass(frozen=True, slots=True)
class Spoken:
    """A finished turn, as far as the next one needs it."""

    turn_id: str
    round: int
    agent: str
    content: str


@dataclass(frozen=True, slots=True)
class Speaking:
    """The turn in flight. `heard` is the last event of its generation that is in the log."""

    turn_id: str
    round: int
    agent: str
    attempt: int
    prompt: str
    text: str = ""
    heard: int = 0


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A turn whose last try broke off."""

    turn_id: str
    round: int
    agent: str
    attempt: int
    failure: failure_pb2.Failure


@dataclass(frozen=True, slots=True)
class SessionState:
    """Everything `next_step` looks at."""

    session: session_pb2.Session = field(default_factory=session_pb2.Session)
    last_sequence: int = 0
    spoken: tuple[Spoken, ...] = ()
    speaking: Speaking | None = None
    interrupted: Interrupted | None = None
    rounds_finished: int = 0
    similarities: tuple[float, ...] = ()
    converged: bool = False
    advances: int = 0
    paused: bool = False
    cancelled: bool = False
    waiting: bool = False
    takeovers: int = 0
    signals: frozenset[str] = frozenset()
    finished: bool = False
    input_tokens: int = 0
    output_tokens: int = 0
    cost_micros_usd: int = 0


def fold(state: SessionState, events: Iterable[event_pb2.SessionEvent]) -> SessionState:
    """The state after these events."""
    for event in events:
        state = _after(state, event)
    return state


def _after(state: SessionState, event: event_pb2.SessionEvent) -> SessionState:
    state = replace(state, last_sequence=event.sequence)
    match event.WhichOneof("payload"):
        case "session_started":
            return replace(state, session=event.session_started.session)
        case "turn_started":
            return _turn_started(state, event.turn_started)
        case "tokens_produced":
            return _heard(state, event.tokens_produced.generation_sequence, event.tokens_produced.text)
        case "monitor_verdict":
            return _heard(state, event.monitor_verdict.generation_sequence, "")
        case "turn_finished":
            return _turn_finished(state, event.turn_finished)
        case "turn_interrupted":
            return _turn_interrupted(state, event.turn_interrupted)
        case "round_finished":
            done = event.round_finished
            similarities = (*state.similarities, done.similarity)
            return replace(state, rounds_finished=done.round, similarities=similarities, converged=done.converged)
        case "signal_received":
            return _signalled(state, event.signal_received)
        case "session_waiting":
            return replace(state, waiting=True)
        case "session_taken_over":
            return replace(state, takeovers=event.session_taken_over.takeovers)
        case "session_finished":
            return replace(state, session=event.session_finished.session, finished=True, speaking=None)
        case _:
            return state


def _turn_started(state: SessionState, started: event_pb2.TurnStarted) -> SessionState:
    speaking = Speaking(started.turn_id, started.round, started.agent, started.attempt, started.prompt)
    return replace(state, speaking=speaking, interrupted=None, waiting=False)


def _heard(state: SessionState, sequence: int, text: str) -> SessionState:
    if state.speaking is None:
        return state
    speaking = replace(state.speaking, text=state.speaking.text + text, heard=max(state.speaking.heard, sequence))
    return replace(state, speaking=speaking)


def _turn_finished(state: SessionState, done: event_pb2.TurnFinished) -> SessionState:
    turn = done.turn
    return replace(
        state,
        spoken=(*state.spoken, Spoken(turn.id, turn.round, turn.agent, turn.content)),
        speaking=None,
        input_tokens=state.input_tokens + turn.usage.input_tokens,
        output_tokens=state.output_tokens + turn.usage.output_tokens,
        cost_micros_usd=state.cost_micros_usd + turn.cost.micros_usd,
    )


def _turn_interrupted(state: SessionState, broken: event_pb2.TurnInterrupted) -> SessionState:
    speaking = state.speaking
    if speaking is None:
        return state
    interrupted = Interrupted(speaking.turn_id, speaking.round, speaking.agent, speaking.attempt, broken.failure)
    return replace(state, speaking=None, interrupted=interrupted)


def _signalled(state: SessionState, received: event_pb2.SignalReceived) -> SessionState:
    state = replace(state, signals=state.signals | {received.signal_id}, waiting=False)
    match received.signal:
        case "pause":
            return replace(state, paused=True)
        case "resume":
            return replace(state, paused=False)
        case "advance":
            return replace(state, advances=state.advances + 1)
        case "cancel":
            return replace(state, cancelled=True)
        case _:
            return state
