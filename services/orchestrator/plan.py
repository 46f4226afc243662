"""What happens next: one pure decision over the state. No I/O, no clock, no randomness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agentnet.common.v1 import failure_pb2
from agentnet.orchestrator.v1 import event_pb2, session_pb2
from services.orchestrator import convergence, holds, modes
from services.orchestrator.modes import adaptive
from services.orchestrator.modes.contract import FLOOR, Order, Part, Phase, Table
from services.orchestrator.modes.parallel import Parallel
from services.orchestrator.modes.round_robin import RoundRobin
from services.orchestrator.state import ASKING, Interrupted, SessionState
from shared.errors import Reason

MAX_ATTEMPTS: Final = 3
# An answer that was not of its form is asked for once more.
_MAX_ANSWERS: Final = 2


@dataclass(frozen=True, slots=True)
class StartTurn:
    """An agent speaks. A turn that broke off keeps its id and counts its tries; `broken` is its last one."""

    round: int
    part: Part
    attempt: int = 1
    turn_id: str = ""
    broken: Interrupted | None = None


@dataclass(frozen=True, slots=True)
class Begin:
    """Turns start, all at once."""

    turns: tuple[StartTurn, ...]


@dataclass(frozen=True, slots=True)
class Await:
    """Turns are in flight; those nobody hears are gone on with."""


@dataclass(frozen=True, slots=True)
class Note:
    """What follows from the log goes into the log."""

    events: tuple[event_pb2.SessionEvent, ...]


@dataclass(frozen=True, slots=True)
class EndRound:
    """Every part of the round is spoken."""

    round: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing happens until a signal."""

    status: session_pb2.SessionStatus.ValueType


@dataclass(frozen=True, slots=True)
class Finish:
    """The session ends."""

    status: session_pb2.SessionStatus.ValueType
    reason: session_pb2.StopReason.ValueType
    failure: failure_pb2.Failure | None = None
    measure: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """It has ended."""


Step = Begin | Await | Note | EndRound | Wait | Finish | Done

_STOPS: Final = {
    Reason.ERROR_REASON_POLICY_BLOCKED: session_pb2.STOP_REASON_POLICY_BLOCKED,
    Reason.ERROR_REASON_CALL_APPROVAL_REQUIRED: session_pb2.STOP_REASON_POLICY_BLOCKED,
    Reason.ERROR_REASON_BUDGET_EXHAUSTED: session_pb2.STOP_REASON_BUDGET_EXHAUSTED,
}
_COMPLETED: Final = session_pb2.SESSION_STATUS_COMPLETED


def next_step(state: SessionState, *, max_takeovers: int) -> Step:
    """The one next step."""
    if state.finished:
        return Done()
    if stop := _stop(state, max_takeovers):
        return stop
    ready = [broken for broken in state.interrupted if not broken.waits]
    if ready and not (state.paused and _asking(state)):
        return Begin(tuple(_again(broken) for broken in ready))
    if state.paused:
        return Await() if _at_work(state) else Wait(session_pb2.SESSION_STATUS_PAUSED)
    if state.interrupted:
        return Await() if _at_work(state) else Wait(session_pb2.SESSION_STATUS_AWAITING_INPUT)
    return _talk(state)


def _stop(state: SessionState, max_takeovers: int) -> Finish | None:
    """Why the session ends whatever its agents were about to do; None: it does not."""
    if state.cancelled:
        return Finish(session_pb2.SESSION_STATUS_CANCELLED, session_pb2.STOP_REASON_CANCELLED)
    if state.takeovers > max_takeovers:
        return _poisoned()
    for broken in state.interrupted:
        if not (broken.waits or broken.allowed or worth_another_try(broken.failure, broken.attempt)):
            reason = _STOPS.get(broken.failure.reason, session_pb2.STOP_REASON_TURN_FAILED)
            return Finish(session_pb2.SESSION_STATUS_FAILED, reason, _whose(broken))
    return None


def _whose(broken: Interrupted) -> failure_pb2.Failure:
    """A turn's failure as its session's: of many agents it says which, and who did not let it go on."""
    failure = failure_pb2.Failure()
    failure.CopyFrom(holds.refused_turn(broken) if broken.answer else broken.failure)
    failure.metadata.update(agent=broken.agent, turn_id=broken.turn_id)
    return failure


def _asking(state: SessionState) -> bool:
    return any(broken.failure.reason in ASKING for broken in state.interrupted)


def worth_another_try(failure: failure_pb2.Failure, attempt: int) -> bool:
    """Whether a turn that broke off on this try is started anew. What policy or the budget ended stays ended; what a
    person has to allow first waits for that as often as it takes.
    """
    if failure.reason in ASKING:
        return True
    tries = _MAX_ANSWERS if failure.reason == Reason.ERROR_REASON_TURN_OUTPUT_INVALID else MAX_ATTEMPTS
    return failure.retryable and failure.reason not in _STOPS and attempt < tries


def _talk(state: SessionState) -> Step:
    """The phases of the round, or after the last one those that close the session, in order."""
    session = state.session
    mode = modes.mode(session.mode)
    ending = _ending(state)
    number = max(state.rounds_finished, 1) if ending else state.rounds_finished + 1
    if session.strategy == modes.ADAPTIVE and not state.strategy:
        return Note((event_pb2.SessionEvent(strategy_chosen=adaptive.choose(session)),))
    if not ending and session.manual_advance and number > 1 + state.advances:
        return Wait(session_pb2.SESSION_STATUS_WAITING)
    phases = mode.closing(state) if ending else mode.phases(state, number)
    if ending and _unfinished(state, phases):
        return Await() if _at_work(state) else Wait(session_pb2.SESSION_STATUS_AWAITING_INPUT)
    for phase in phases:
        if floor := _floor(state, phase, number):
            return _speak(state, floor, number)
    if facts := mode.facts(state, number, closing=ending is not None):
        return Note(tuple(facts))
    return ending or EndRound(number)


def _speak(state: SessionState, floor: tuple[Part, ...], number: int) -> Step:
    """Those start who have the floor and do not speak yet."""
    speaking = {one.key for one in state.speaking.values() if one.round == number}
    if starting := tuple(StartTurn(number, part) for part in floor if part.key not in speaking):
        return Begin(starting)
    return Await() if _at_work(state) else Wait(session_pb2.SESSION_STATUS_AWAITING_INPUT)


def _floor(state: SessionState, phase: Phase, number: int) -> tuple[Part, ...]:
    names = {part.phase for part in phase.parts} | {phase.name + FLOOR}
    table = Table(state.session, phase, state.turns(number, *names))
    match phase.order:
        case Order.TOGETHER:
            return Parallel().floor(table)
        case Order.IN_ORDER:
            return RoundRobin().floor(table)
        case Order.STRATEGY:
            return modes.strategy(state.strategy or state.session.strategy).floor(table)


def _unfinished(state: SessionState, closing: Sequence[Phase]) -> bool:
    """Whether turns of a round that a cap has ended are still in flight."""
    last = {part.phase for phase in closing for part in phase.parts}
    return any(speaking.phase not in last for speaking in state.speaking.values())


def _at_work(state: SessionState) -> bool:
    """Whether a turn is in flight that waits for nobody."""
    return any(not speaking.blocked for speaking in state.speaking.values())


def _ending(state: SessionState) -> Finish | None:
    """Why the session ends after the rounds it has had; None: it goes on."""
    session, number = state.session, state.rounds_finished
    if number and (enough := _enough(state, number)):
        return enough
    if number >= session.max_rounds:
        return Finish(_COMPLETED, session_pb2.STOP_REASON_MAX_ROUNDS, measure="max_rounds")
    if (cap := _cap(state)) and _more_to_say(state, number + 1):
        return Finish(_COMPLETED, session_pb2.STOP_REASON_LIMIT_REACHED, measure=cap)
    return None


def _enough(state: SessionState, number: int) -> Finish | None:
    """Why there is nothing more to say after a finished round: the mode's reason, a measure's, or that all is done."""
    mode = modes.mode(state.session.mode)
    if own := mode.ending(state, number):
        return Finish(_COMPLETED, own.reason, measure=own.measure)
    if state.measure:
        return Finish(_COMPLETED, convergence.measure(state.measure).ends, measure=state.measure)
    if state.converged:
        return Finish(_COMPLETED, session_pb2.STOP_REASON_CONVERGED)
    if mode.rounds and number >= mode.rounds:
        return Finish(_COMPLETED, session_pb2.STOP_REASON_COMPLETED)
    return None


def _more_to_say(state: SessionState, number: int) -> bool:
    """Whether turns of a round are still to come: a cap that the last one reaches has cut nothing off."""
    phases = modes.mode(state.session.mode).phases(state, number)
    return any(_floor(state, phase, number) for phase in phases)


def _cap(state: SessionState) -> str:
    """The first hard cap that is reached; empty: none."""
    limits = state.session.limits
    reached = {
        "max_turns": limits.max_turns and state.turns_finished >= limits.max_turns,
        "max_tokens": limits.max_tokens and state.input_tokens + state.output_tokens >= limits.max_tokens,
        "max_cost_micros_usd": limits.max_cost_micros_usd and state.cost_micros_usd >= limits.max_cost_micros_usd,
        "max_duration": limits.HasField("max_duration") and state.age >= limits.max_duration.ToTimedelta(),
    }
    return next((name for name, over in reached.items() if over), "")


def _again(broken: Interrupted) -> StartTurn:
    part = Part(broken.agent, broken.phase)
    return StartTurn(broken.round, part, broken.attempt + 1, broken.turn_id, broken)


def _poisoned() -> Finish:
    failure = failure_pb2.Failure(
        reason=Reason.ERROR_REASON_SESSION_POISONED, message="the session was taken over too often and is set aside"
    )
    return Finish(session_pb2.SESSION_STATUS_FAILED, session_pb2.STOP_REASON_POISONED, failure)
