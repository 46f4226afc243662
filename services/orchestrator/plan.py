"""What happens next: one pure decision over the state. No I/O, no clock, no randomness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from agentnet.common.v1 import failure_pb2
from agentnet.orchestrator.v1 import session_pb2
from services.orchestrator.convergence import agreed, similarity
from services.orchestrator.modes import strategy
from services.orchestrator.state import SessionState, Speaking
from shared.errors import Reason

MAX_ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True)
class StartTurn:
    """An agent speaks. A turn that broke off keeps its id and counts its tries."""

    round: int
    agent: str
    attempt: int = 1
    turn_id: str = ""


@dataclass(frozen=True, slots=True)
class GoOn:
    """A turn is in flight; its generation is attached to again."""

    speaking: Speaking


@dataclass(frozen=True, slots=True)
class EndRound:
    """Every agent has spoken in the round."""

    round: int
    similarity: float
    converged: bool


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


@dataclass(frozen=True, slots=True)
class Done:
    """It has ended."""


Step = StartTurn | GoOn | EndRound | Wait | Finish | Done

_STOPS: Final = {
    Reason.ERROR_REASON_POLICY_BLOCKED: session_pb2.STOP_REASON_POLICY_BLOCKED,
    Reason.ERROR_REASON_BUDGET_EXHAUSTED: session_pb2.STOP_REASON_BUDGET_EXHAUSTED,
}


def next_step(state: SessionState, *, max_takeovers: int) -> Step:
    """The one next step."""
    if state.finished:
        return Done()
    if state.cancelled:
        return Finish(session_pb2.SESSION_STATUS_CANCELLED, session_pb2.STOP_REASON_CANCELLED)
    if state.takeovers > max_takeovers:
        return _poisoned()
    if state.speaking:
        return GoOn(state.speaking)
    if state.interrupted:
        return _after_interruption(state)
    return _between_turns(state)


def worth_another_try(failure: failure_pb2.Failure, attempt: int) -> bool:
    """Whether a turn that broke off on this try is started anew. What policy or the budget ended stays ended."""
    return failure.retryable and failure.reason not in _STOPS and attempt < MAX_ATTEMPTS


def _between_turns(state: SessionState) -> Step:
    session = state.session
    round_now = state.rounds_finished + 1
    if state.converged:
        return Finish(session_pb2.SESSION_STATUS_COMPLETED, session_pb2.STOP_REASON_CONVERGED)
    if state.rounds_finished >= session.max_rounds:
        return Finish(session_pb2.SESSION_STATUS_COMPLETED, session_pb2.STOP_REASON_MAX_ROUNDS)
    if state.paused:
        return Wait(session_pb2.SESSION_STATUS_PAUSED)
    if session.manual_advance and round_now > 1 + state.advances:
        return Wait(session_pb2.SESSION_STATUS_WAITING)
    speaker = strategy(session.strategy).next_speaker(tuple(session.agents), _spoken_in(state, round_now))
    if speaker is None:
        return _end_round(state, round_now)
    return StartTurn(round_now, speaker)


def _end_round(state: SessionState, round_now: int) -> EndRound:
    before, now = _text(state, round_now - 1), _text(state, round_now)
    alike = similarity(before, now)
    policy = state.session.convergence_policy
    return EndRound(round_now, alike, converged=policy.enabled and agreed(alike, policy.threshold))


def _after_interruption(state: SessionState) -> Step:
    broken = state.interrupted
    assert broken is not None  # noqa: S101 - the caller looked
    if worth_another_try(broken.failure, broken.attempt):
        return StartTurn(broken.round, broken.agent, broken.attempt + 1, broken.turn_id)
    reason = _STOPS.get(broken.failure.reason, session_pb2.STOP_REASON_TURN_FAILED)
    return Finish(session_pb2.SESSION_STATUS_FAILED, reason, broken.failure)


def _poisoned() -> Finish:
    failure = failure_pb2.Failure(
        reason=Reason.ERROR_REASON_SESSION_POISONED, message="the session was taken over too often and is set aside"
    )
    return Finish(session_pb2.SESSION_STATUS_FAILED, session_pb2.STOP_REASON_POISONED, failure)


def _spoken_in(state: SessionState, number: int) -> tuple[str, ...]:
    return tuple(turn.agent for turn in state.spoken if turn.round == number)


def _text(state: SessionState, number: int) -> str:
    return " ".join(turn.content for turn in state.spoken if turn.round == number)
