"""The state of a session: a pure fold over its log. Any prefix folds to the state the live session had there.

The log's event is the contract's own message; the state speaks of it directly and keeps no second vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from agentnet.common.v1 import failure_pb2
from agentnet.orchestrator.v1 import event_pb2, session_pb2, turn_pb2


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
    context: turn_pb2.TurnContext
    started_at: datetime
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
    change = _CHANGES.get(event.WhichOneof("payload") or "")
    return change(state, event) if change else state


def _session_started(state: SessionState, event: event_pb2.SessionEvent) -> SessionState:
    return replace(state, session=event.session_started.session)


def _turn_started(state: SessionState, event: event_pb2.SessionEvent) -> SessionState:
    started = event.turn_started
    speaking = Speaking(
        started.turn_id,
        started.round,
        started.agent,
        started.attempt,
        started.prompt,
        started.context,
        event.time.ToDatetime(UTC),
    )
    return replace(state, speaking=speaking, interrupted=None, waiting=False)


def _tokens_produced(state: SessionState, event: event_pb2.SessionEvent) -> SessionState:
    tokens = event.tokens_produced
    return _heard(state, tokens.generation_sequence, tokens.text)


def _monitor_verdict(state: SessionState, event: event_pb2.SessionEvent) -> SessionState:
    return _heard(state, event.monitor_verdict.generation_sequence, "")


def _heard(state: SessionState, sequence: int, text: str) -> SessionState:
    if state.speaking is None:
        return state
    speaking = replace(state.speaking, text=state.speaking.text + text, heard=max(state.speaking.heard, sequence))
    return replace(state, speaking=speaking)


def _failed_over(state: SessionState, event: event_pb2.SessionEvent) -> SessionState:
    if state.speaking is None or not event.failed_over.restarted:
        return state
    return replace(state, speaking=replace(state.speaking, text=""))


def _turn_finished(state: SessionState, event: event_pb2.SessionEvent) -> SessionState:
    turn = event.turn_finished.turn
    return replace(
        state,
        spoken=(*state.spoken, Spoken(turn.id, turn.round, turn.agent, turn.content)),
        speaking=None,
        input_tokens=state.input_tokens + turn.usage.input_tokens,
        output_tokens=state.output_tokens + turn.usage.output_tokens,
        cost_micros_usd=state.cost_micros_usd + turn.cost.micros_usd,
    )


def _turn_interrupted(state: SessionState, event: event_pb2.SessionEvent) -> SessionState:
    speaking = state.speaking
    if speaking is None:
        return state
    failure = event.turn_interrupted.failure
    interrupted = Interrupted(speaking.turn_id, speaking.round, speaking.agent, speaking.attempt, failure)
    return replace(state, speaking=None, interrupted=interrupted)


def _round_finished(state: SessionState, event: event_pb2.SessionEvent) -> SessionState:
    done = event.round_finished
    similarities = (*state.similarities, done.similarity)
    return replace(state, rounds_finished=done.round, similarities=similarities, converged=done.converged)


def _signal_received(state: SessionState, event: event_pb2.SessionEvent) -> SessionState:
    received = event.signal_received
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


def _session_waiting(state: SessionState, _event: event_pb2.SessionEvent) -> SessionState:
    """A session that came as far as waiting is no poison: its takeovers count from anew, as in its lease."""
    return replace(state, waiting=True, takeovers=0)


def _session_taken_over(state: SessionState, event: event_pb2.SessionEvent) -> SessionState:
    return replace(state, takeovers=event.session_taken_over.takeovers)


def _session_finished(state: SessionState, event: event_pb2.SessionEvent) -> SessionState:
    return replace(state, session=event.session_finished.session, finished=True, speaking=None)


def _session_forked(state: SessionState, event: event_pb2.SessionEvent) -> SessionState:
    """Goes on as another session: no turn is in flight, no signal of the source's counts."""
    return replace(
        state,
        session=event.session_forked.session,
        speaking=None,
        interrupted=None,
        paused=False,
        cancelled=False,
        waiting=False,
        converged=False,
        takeovers=0,
        signals=frozenset(),
    )


_CHANGES: Final[dict[str, Callable[[SessionState, event_pb2.SessionEvent], SessionState]]] = {
    "session_started": _session_started,
    "turn_started": _turn_started,
    "tokens_produced": _tokens_produced,
    "monitor_verdict": _monitor_verdict,
    "failed_over": _failed_over,
    "turn_finished": _turn_finished,
    "turn_interrupted": _turn_interrupted,
    "round_finished": _round_finished,
    "signal_received": _signal_received,
    "session_waiting": _session_waiting,
    "session_taken_over": _session_taken_over,
    "session_finished": _session_finished,
    "session_forked": _session_forked,
}
