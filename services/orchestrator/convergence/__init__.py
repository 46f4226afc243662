"""When a session has come to its end: measures by name, plug-ins among them, and what they decide about a round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from agentnet.orchestrator.v1 import event_pb2, progress_pb2, session_pb2
from services.orchestrator.convergence.contract import Measure, Rounds, Vector
from services.orchestrator.convergence.jaccard import Jaccard, similarity
from services.orchestrator.convergence.semantic import Semantic
from services.orchestrator.convergence.stagnation import Stagnation
from services.orchestrator.modes.named import Named
from services.orchestrator.state import SessionState

_DEFAULT: Final = "jaccard"

measure: Final[Named[Measure]] = Named(
    "measure", "agentnet.measures", {_DEFAULT: Jaccard(), "semantic": Semantic(), "stagnation": Stagnation()}
)


def rules(policy: session_pb2.ConvergencePolicy) -> list[session_pb2.MeasureRule]:
    """What is measured, with thresholds and rounds filled in. Raises NameUnknown."""
    asked = list(policy.measures) or [session_pb2.MeasureRule(measure=_DEFAULT)]
    return [
        session_pb2.MeasureRule(
            measure=rule.measure,
            threshold=rule.threshold or policy.threshold or measure(rule.measure).threshold,
            rounds=rule.rounds or measure(rule.measure).rounds,
        )
        for rule in asked
    ]


def by_meaning(policy: session_pb2.ConvergencePolicy) -> bool:
    """Whether any measure wants vectors."""
    return any(measure(rule.measure).by_meaning for rule in rules(policy))


def judged(
    state: SessionState,
    number: int,
    *,
    before: Sequence[Vector] = (),
    now: Sequence[Vector] = (),
    degraded: bool = False,
) -> event_pb2.RoundFinished:
    """What is said about a round that is over. The first measure that decides is the one that did."""
    policy = state.session.convergence_policy
    rounds = Rounds(tuple(state.text(one) for one in range(1, number + 1)), tuple(before), tuple(now))
    alike = similarity(*rounds.texts[-2:]) if number > 1 else 0.0
    scores = [_score(state, rule, rounds, degraded=degraded) for rule in rules(policy)]
    decided = next((score for score in scores if score.decided), None)
    ends = measure(decided.measure).ends if decided else None
    return event_pb2.RoundFinished(
        round=number,
        similarity=alike,
        converged=ends == session_pb2.STOP_REASON_CONVERGED,
        scores=scores,
        measure=decided.measure if decided else "",
    )


def _score(
    state: SessionState, rule: session_pb2.MeasureRule, rounds: Rounds, *, degraded: bool
) -> progress_pb2.MeasureScore:
    found = measure(rule.measure)
    lost = degraded and found.by_meaning
    score = 0.0 if lost else found.score(rounds)
    earlier = [scores.get(rule.measure, 0.0) for scores in state.scores[max(len(state.scores) - rule.rounds + 1, 0) :]]
    enough = len(earlier) == rule.rounds - 1 and all(one >= rule.threshold for one in (*earlier, score))
    return progress_pb2.MeasureScore(
        measure=rule.measure,
        score=score,
        threshold=rule.threshold,
        decided=enough and not lost and state.session.convergence_policy.enabled,
        degraded=lost,
    )
