"""The state of a session: a pure fold over its log. Any prefix folds to the state the live session had there.

The log's event is the contract's own message; the state speaks of it directly and keeps no second vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, timedelta
from typing import Final

from agentnet.orchestrator.v1 import decision_pb2, event_pb2, input_pb2, progress_pb2, session_pb2
from services.orchestrator.speech import Call, Interrupted, Speaking, Spoken, changed
from shared.errors import Reason

Event = event_pb2.SessionEvent
# What a person has to allow before the turn may be tried again; until then the session is paused.
ASKING: Final = frozenset({Reason.ERROR_REASON_BUDGET_APPROVAL_REQUIRED})
_NANOS: Final = 1_000_000_000

__all__ = ["Call", "Interrupted", "SessionState", "Speaking", "Spoken", "fold"]


@dataclass(frozen=True)
class SessionState:
    """Everything `next_step` looks at. Without slots: copied at every event, which a dict does ten times as fast.

    `speaking` are the turns in flight, by id; `now` is the time of the last event, in nanoseconds since 1970.
    """

    session: session_pb2.Session = field(default_factory=session_pb2.Session)
    last_sequence: int = 0
    now: int = 0
    spoken: tuple[Spoken, ...] = ()
    speaking: Mapping[str, Speaking] = field(default_factory=dict)
    interrupted: tuple[Interrupted, ...] = ()
    rounds_finished: int = 0
    turns_finished: int = 0
    similarities: tuple[float, ...] = ()
    scores: tuple[Mapping[str, float], ...] = ()
    converged: bool = False
    measure: str = ""
    strategy: str = ""
    decisions: tuple[decision_pb2.Decision, ...] = ()
    contested: tuple[progress_pb2.PointsContested, ...] = ()
    plan: progress_pb2.PlanMade | None = None
    result: str = ""
    inputs: Mapping[str, input_pb2.HumanInput] = field(default_factory=dict)
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

    def turns(self, number: int, *phases: str) -> tuple[Spoken, ...]:
        """Finished turns of a round in these phases, in order."""
        return tuple(turn for turn in self.spoken if turn.round == number and turn.phase in phases)

    def text(self, number: int) -> str:
        """What agents said in a round, without ballots and the like."""
        return " ".join(
            turn.content for turn in self.spoken if turn.round == number and not turn.formal and not turn.by_person
        )

    @property
    def age(self) -> timedelta:
        """Time from the start to the last event."""
        return timedelta(microseconds=(self.now - self.session.start_time.ToNanoseconds()) / 1_000)


def fold(state: SessionState, events: Iterable[Event]) -> SessionState:
    """The state after these events."""
    for event in events:
        state = _after(state, event)
    return state


def _after(state: SessionState, event: Event) -> SessionState:
    if event.HasField("tokens_produced") and event.tokens_produced.turn_id in state.speaking:
        return _tokens_heard(state, event)
    state = changed(state, last_sequence=event.sequence, now=_instant(state, event))
    change = _CHANGES.get(event.WhichOneof("payload") or "")
    return change(state, event) if change else state


def _tokens_heard(state: SessionState, event: Event) -> SessionState:
    """By far the most frequent change, so the state is copied once."""
    tokens = event.tokens_produced
    heard = state.speaking[tokens.turn_id].said(tokens.text, tokens.generation_sequence)
    speaking = {**state.speaking, tokens.turn_id: heard}
    return changed(state, last_sequence=event.sequence, now=_instant(state, event), speaking=speaking)


def _instant(state: SessionState, event: Event) -> int:
    return event.time.seconds * _NANOS + event.time.nanos if event.HasField("time") else state.now


def _session_started(state: SessionState, event: Event) -> SessionState:
    return changed(state, session=event.session_started.session)


def _turn_started(state: SessionState, event: Event) -> SessionState:
    started = event.turn_started
    speaking = Speaking(
        started.turn_id,
        started.round,
        started.agent,
        started.attempt,
        started.prompt,
        started.context,
        event.time.ToDatetime(UTC),
        phase=started.phase,
        messages=tuple((message.role, message.text) for message in started.messages),
        max_iterations=max(started.max_iterations, 1),
        override_id=next((one.override_id for one in state.interrupted if one.turn_id == started.turn_id), ""),
    )
    others = tuple(broken for broken in state.interrupted if broken.turn_id != started.turn_id)
    return changed(state, speaking={**state.speaking, started.turn_id: speaking}, interrupted=others, waiting=False)


def _monitor_verdict(state: SessionState, event: Event) -> SessionState:
    verdict = event.monitor_verdict
    return _speech(state, verdict.turn_id, lambda one: one.judged(verdict.generation_sequence))


def _failed_over(state: SessionState, event: Event) -> SessionState:
    if not event.failed_over.restarted:
        return state
    return _speech(state, event.failed_over.turn_id, lambda one: changed(one, text=one.text[: one.mark]))


def _progressed(state: SessionState, event: Event) -> SessionState:
    return _speech(state, event.progressed.turn_id, lambda one: one.iterated(event.progressed))


def _tool_started(state: SessionState, event: Event) -> SessionState:
    return _speech(state, event.tool_started.turn_id, lambda one: one.called(event.tool_started.call))


def _tool_finished(state: SessionState, event: Event) -> SessionState:
    return _speech(state, event.tool_finished.turn_id, lambda one: one.answered(event.tool_finished))


def _input_requested(state: SessionState, event: Event) -> SessionState:
    asked = event.input_requested.input
    state = changed(state, inputs={**state.inputs, asked.id: asked})
    state = _broken(state, asked.turn_id, lambda one: replace(one, input_id=asked.id, answer=None))
    return _speech(state, asked.turn_id, lambda one: one.asked(asked))


def _input_given(state: SessionState, event: Event) -> SessionState:
    given = event.input_given
    if given.input_id not in state.inputs:
        return state
    asked = state.inputs[given.input_id]
    state = changed(state, inputs={name: one for name, one in state.inputs.items() if name != given.input_id})
    state = _broken(state, asked.turn_id, lambda one: replace(one, answer=given, override_id=given.override_id))
    return _speech(state, asked.turn_id, lambda one: one.told(given))


def _speech(state: SessionState, turn_id: str, change: Callable[[Speaking], Speaking]) -> SessionState:
    """The state with one turn in flight changed, if it is in flight."""
    if turn_id not in state.speaking:
        return state
    return changed(state, speaking={**state.speaking, turn_id: change(state.speaking[turn_id])})


def _broken(state: SessionState, turn_id: str, change: Callable[[Interrupted], Interrupted]) -> SessionState:
    """The state with one turn that broke off changed, if it did."""
    interrupted = tuple(change(one) if one.turn_id == turn_id else one for one in state.interrupted)
    return changed(state, interrupted=interrupted)


def _turn_finished(state: SessionState, event: Event) -> SessionState:
    turn = event.turn_finished.turn
    spoken = Spoken(turn.id, turn.round, turn.agent, turn.content, turn.phase)
    return changed(
        _without(state, turn.id),
        spoken=(*state.spoken, spoken),
        turns_finished=state.turns_finished + 1,
        input_tokens=state.input_tokens + turn.usage.input_tokens,
        output_tokens=state.output_tokens + turn.usage.output_tokens,
        cost_micros_usd=state.cost_micros_usd + turn.cost.micros_usd,
    )


def _turn_interrupted(state: SessionState, event: Event) -> SessionState:
    broken = event.turn_interrupted
    speaking = state.speaking.get(broken.turn_id)
    if speaking is None:
        return state
    return changed(
        _without(state, broken.turn_id),
        # Its agents wait for whoever may say yes, and go on where they were.
        paused=state.paused or broken.failure.reason in ASKING,
        interrupted=(*state.interrupted, speaking.broken(broken.failure)),
        input_tokens=state.input_tokens + broken.usage.input_tokens,
        output_tokens=state.output_tokens + broken.usage.output_tokens,
        cost_micros_usd=state.cost_micros_usd + broken.cost.micros_usd,
    )


def _without(state: SessionState, turn_id: str) -> SessionState:
    """A turn is no longer in flight, and nobody is asked on its behalf any more."""
    speaking = {name: one for name, one in state.speaking.items() if name != turn_id}
    inputs = {name: one for name, one in state.inputs.items() if one.turn_id != turn_id}
    return changed(state, speaking=speaking, inputs=inputs)


def _round_finished(state: SessionState, event: Event) -> SessionState:
    done = event.round_finished
    return changed(
        state,
        rounds_finished=done.round,
        similarities=(*state.similarities, done.similarity),
        scores=(*state.scores, {score.measure: score.score for score in done.scores}),
        converged=done.converged,
        measure=done.measure,
    )


def _strategy_chosen(state: SessionState, event: Event) -> SessionState:
    return changed(state, strategy=event.strategy_chosen.strategy)


def _decision_reached(state: SessionState, event: Event) -> SessionState:
    return changed(state, decisions=(*state.decisions, event.decision_reached.decision))


def _points_contested(state: SessionState, event: Event) -> SessionState:
    return changed(state, contested=(*state.contested, event.points_contested))


def _plan_made(state: SessionState, event: Event) -> SessionState:
    return changed(state, plan=event.plan_made)


def _partial_result(state: SessionState, event: Event) -> SessionState:
    return changed(state, result=event.partial_result.content)


def _message_injected(state: SessionState, event: Event) -> SessionState:
    said = event.message_injected
    spoken = Spoken(said.message_id, state.rounds_finished + 1, f"user:{said.sender}", said.content, "message")
    return changed(state, spoken=(*state.spoken, spoken))


def _signal_received(state: SessionState, event: Event) -> SessionState:
    received = event.signal_received
    state = changed(state, signals=state.signals | {received.signal_id}, waiting=False)
    match received.signal:
        case "pause":
            return changed(state, paused=True)
        case "resume":
            return changed(state, paused=False)
        case "advance":
            return changed(state, advances=state.advances + 1)
        case "cancel":
            return changed(state, cancelled=True)
        case _:
            return state


def _session_waiting(state: SessionState, _event: Event) -> SessionState:
    """A session that came as far as waiting is no poison: its takeovers count from anew, as in its lease."""
    return changed(state, waiting=True, takeovers=0)


def _session_taken_over(state: SessionState, event: Event) -> SessionState:
    return changed(state, takeovers=event.session_taken_over.takeovers)


def _session_finished(state: SessionState, event: Event) -> SessionState:
    return changed(state, session=event.session_finished.session, finished=True, speaking={}, inputs={})


def _session_forked(state: SessionState, event: Event) -> SessionState:
    """Goes on as another session: no turn is in flight, nobody is asked, no signal of the source's counts."""
    return changed(
        state,
        session=event.session_forked.session,
        speaking={},
        interrupted=(),
        inputs={},
        measure="",
        paused=False,
        cancelled=False,
        waiting=False,
        converged=False,
        takeovers=0,
        signals=frozenset(),
    )


_CHANGES: Final[dict[str, Callable[[SessionState, Event], SessionState]]] = {
    "session_started": _session_started,
    "turn_started": _turn_started,
    "monitor_verdict": _monitor_verdict,
    "failed_over": _failed_over,
    "progressed": _progressed,
    "tool_started": _tool_started,
    "tool_finished": _tool_finished,
    "input_requested": _input_requested,
    "input_given": _input_given,
    "turn_finished": _turn_finished,
    "turn_interrupted": _turn_interrupted,
    "round_finished": _round_finished,
    "strategy_chosen": _strategy_chosen,
    "decision_reached": _decision_reached,
    "points_contested": _points_contested,
    "plan_made": _plan_made,
    "partial_result": _partial_result,
    "message_injected": _message_injected,
    "signal_received": _signal_received,
    "session_waiting": _session_waiting,
    "session_taken_over": _session_taken_over,
    "session_finished": _session_finished,
    "session_forked": _session_forked,
}
