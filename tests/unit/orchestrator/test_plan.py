"""The one next step, decided without clock, store or chance."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from agentnet.common.v1 import failure_pb2
from agentnet.orchestrator.v1 import session_pb2, turn_pb2
from services.orchestrator import convergence
from services.orchestrator.convergence.jaccard import similarity
from services.orchestrator.errors import NameUnknown
from services.orchestrator.modes import mode, strategy
from services.orchestrator.modes.contract import Part
from services.orchestrator.plan import Await, Begin, Done, EndRound, Finish, StartTurn, Step, Wait, next_step
from services.orchestrator.state import Interrupted, SessionState, Speaking, Spoken
from shared.errors import Reason

ATHENA, APOLLO = "Athena@1.0.0", "Apollo@1.0.0"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SPEAKING = {"trn_1": Speaking("trn_1", 1, ATHENA, 1, "Why?", turn_pb2.TurnContext(), NOON, phase="idea")}


def configured(**given: Any) -> session_pb2.Session:
    agents = [ATHENA, APOLLO]
    return session_pb2.Session(mode="brainstorm", strategy="round_robin", agents=agents, max_rounds=2, **given)


FRESH = SessionState(session=configured())


def said(agent: str, number: int, content: str = "word") -> Spoken:
    return Spoken(f"trn_{agent}_{number}", number, agent, content, "idea")


def start(number: int, agent: str, attempt: int = 1, turn_id: str = "", broken: Interrupted | None = None) -> Begin:
    return Begin((StartTurn(number, Part(agent, "idea"), attempt, turn_id, broken),))


def step(state: SessionState) -> Step:
    return next_step(state, max_takeovers=5)


def test_the_first_agent_speaks_first() -> None:
    assert step(FRESH) == start(1, ATHENA)


def test_the_next_agent_speaks_next() -> None:
    assert step(replace(FRESH, spoken=(said(ATHENA, 1),))) == start(1, APOLLO)


def test_a_round_ends_when_all_have_spoken() -> None:
    state = replace(FRESH, spoken=(said(ATHENA, 1), said(APOLLO, 1)))
    assert step(state) == EndRound(1)


def test_two_rounds_that_say_the_same_agree() -> None:
    spoken = tuple(said(agent, number) for number in (1, 2) for agent in (ATHENA, APOLLO))
    convergent = configured(convergence_policy=session_pb2.ConvergencePolicy(enabled=True))
    state = replace(FRESH, session=convergent, spoken=spoken, rounds_finished=1)
    assert step(state) == EndRound(2)
    done = convergence.judged(state, 2)
    assert (done.similarity, done.converged, done.measure) == (1.0, True, "jaccard")


def test_the_session_ends_when_the_rounds_run_out() -> None:
    state = replace(FRESH, rounds_finished=2)
    assert step(state) == Finish(
        session_pb2.SESSION_STATUS_COMPLETED, session_pb2.STOP_REASON_MAX_ROUNDS, measure="max_rounds"
    )


def test_agreement_ends_it_before_the_rounds_do() -> None:
    state = replace(FRESH, rounds_finished=1, converged=True)
    assert step(state) == Finish(session_pb2.SESSION_STATUS_COMPLETED, session_pb2.STOP_REASON_CONVERGED)


def test_a_turn_in_flight_is_gone_on_with() -> None:
    assert step(replace(FRESH, speaking=SPEAKING)) == Await()


def test_a_pause_waits_for_the_turn_in_flight() -> None:
    assert step(replace(FRESH, speaking=SPEAKING, paused=True)) == Await()
    assert step(replace(FRESH, paused=True)) == Wait(session_pb2.SESSION_STATUS_PAUSED)


def test_a_cancel_waits_for_nothing() -> None:
    state = replace(FRESH, speaking=SPEAKING, cancelled=True)
    assert step(state) == Finish(session_pb2.SESSION_STATUS_CANCELLED, session_pb2.STOP_REASON_CANCELLED)


def test_a_finished_session_is_done_whatever_else_holds() -> None:
    assert step(replace(FRESH, finished=True, cancelled=True)) == Done()


@pytest.mark.parametrize(("advances", "expected"), [(0, Wait(session_pb2.SESSION_STATUS_WAITING)), (1, None)])
def test_a_manual_session_runs_one_round_an_advance(advances: int, expected: Step | None) -> None:
    state = replace(FRESH, session=configured(manual_advance=True), rounds_finished=1, advances=advances)
    assert step(state) == (expected or start(2, ATHENA))


@pytest.mark.parametrize(
    ("reason", "retryable", "attempt", "stop"),
    [
        (Reason.ERROR_REASON_PROVIDER_UNAVAILABLE, True, 1, None),
        (Reason.ERROR_REASON_PROVIDER_UNAVAILABLE, True, 3, session_pb2.STOP_REASON_TURN_FAILED),
        (Reason.ERROR_REASON_MODEL_NOT_FOUND, False, 1, session_pb2.STOP_REASON_TURN_FAILED),
        (Reason.ERROR_REASON_POLICY_BLOCKED, False, 1, session_pb2.STOP_REASON_POLICY_BLOCKED),
        (Reason.ERROR_REASON_CALL_APPROVAL_REQUIRED, False, 1, session_pb2.STOP_REASON_POLICY_BLOCKED),
        (Reason.ERROR_REASON_BUDGET_EXHAUSTED, True, 1, session_pb2.STOP_REASON_BUDGET_EXHAUSTED),
    ],
)
def test_what_follows_an_interruption_depends_on_its_reason(
    reason: Reason.ValueType, retryable: bool, attempt: int, stop: session_pb2.StopReason.ValueType | None
) -> None:
    failure = failure_pb2.Failure(reason=reason, retryable=retryable)
    broken = Interrupted("trn_1", 1, ATHENA, attempt, failure, "idea")
    state = replace(FRESH, interrupted=(broken,))
    expected: Step = start(1, ATHENA, attempt + 1, "trn_1", broken)
    if stop is not None:
        whose = {"agent": ATHENA, "turn_id": "trn_1"}
        said = failure_pb2.Failure(reason=reason, retryable=retryable, metadata=whose)
        expected = Finish(session_pb2.SESSION_STATUS_FAILED, stop, said)
    assert step(state) == expected


def test_a_session_taken_over_too_often_is_set_aside() -> None:
    decided = step(replace(FRESH, takeovers=6, speaking=SPEAKING))
    assert isinstance(decided, Finish)
    assert decided.reason == session_pb2.STOP_REASON_POISONED


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ("", "", 0.0),
        ("", "anything", 0.0),
        ("alpha beta", "alpha beta", 1.0),
        ("Alpha, BETA!", "beta alpha", 1.0),
        ("alpha beta", "beta gamma", 1 / 3),
        ("größe ähnlich", "Größe", 0.5),
    ],
)
def test_similarity_is_jaccards_over_words(before: str, now: str, expected: float) -> None:
    assert similarity(before, now) == pytest.approx(expected)


def test_a_threshold_of_zero_means_the_measures_own() -> None:
    asked = [session_pb2.MeasureRule(measure="semantic"), session_pb2.MeasureRule(measure="jaccard", threshold=0.5)]
    found = convergence.rules(session_pb2.ConvergencePolicy(measures=asked))
    assert [(rule.threshold, rule.rounds) for rule in found] == [(0.95, 1), (0.5, 1)]


def test_unknown_modes_and_strategies_are_named_with_those_there_are() -> None:
    with pytest.raises(NameUnknown) as unknown_mode:
        mode("duel")
    with pytest.raises(NameUnknown) as unknown_strategy:
        strategy("auction")
    assert (unknown_mode.value.field, unknown_strategy.value.field) == ("mode", "strategy")
    assert unknown_mode.value.facts["known"].startswith("brainstorm, competition, consensus, debate")
    assert unknown_strategy.value.facts["known"] == "adaptive, moderator, parallel, priority, round_robin"
