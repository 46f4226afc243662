"""When a session has come to its end: measures by name, plug-ins among them, and what they decide about a round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from agentnet.orchestrator.v1 import event_pb2, progress_pb2, session_pb2
from services.orchestrator.convergence.contract import UNASKED, Meaning, Measure, Rounds
from services.orchestrator.convergence.jaccard import Jaccard, similarity
from services.orchestrator.convergence.semantic import Semantic
from services.orchestrator.convergence.stagnation import Stagnation
from services.orchestrator.modes.named import Named
from services.orchestrator.state import SessionState

_DEFAULT: Final = "jaccard"
_NONE: Final[Mapping[str, progress_pb2.MeasureScore]] = {}

measure: Final[Named[Measure]] = Named(
    "measure", "agentnet.measures", {_DEFAULT: Jaccard(), "semantic": Semantic(), "stagnation": Stagnation()}
)


def rules(policy: session_pb2.ConvergencePolicy) -> list[session_pb2.MeasureRule]:
    """What is measured, with thresholds and rounds filled in. Raises NameUnknown."""
    asked = list(policy.measures) or [session_pb2.MeasureRule(measure=_DEFAULT)]
    known = [measure(rule.measure, f"convergence_policy.measures[{at}].measure") for at, rule in enumerate(asked)]
    return [
        session_pb2.MeasureRule(
            measure=rule.measure,
            threshold=rule.threshold or policy.threshold or one.threshold,
            rounds=rule.rounds or one.rounds,
        )
        for rule, one in zip(asked, known, strict=True)
    ]


def by_meaning(policy: session_pb2.ConvergencePolicy) -> bool:
    """Whether any measure wants vectors."""
    return any(measure(rule.measure).by_meaning for rule in rules(policy))


def judged(
    state: SessionState,
    number: int,
    *,
    meaning: Meaning = UNASKED,
    told: Mapping[str, progress_pb2.MeasureScore] = _NONE,
) -> event_pb2.RoundFinished:
    """What is said about a round that is over. The first measure that decides is the one that did.

    `told` are scores by measure that are known already and are not computed.
    """
    policy = state.session.convergence_policy
    texts = tuple(state.text(one) for one in range(1, number + 1))
    rounds = Rounds(texts, meaning.before, meaning.now)
    alike = similarity(*texts[-2:]) if number > 1 else 0.0
    scores = []
    for rule in rules(policy):
        known = told.get(rule.measure)
        lost = known.degraded if known else meaning.degraded and measure(rule.measure).by_meaning
        score = known.score if known else 0.0 if lost else measure(rule.measure).score(rounds)
        scores.append(_score(state, rule, score, lost=lost))
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
    state: SessionState, rule: session_pb2.MeasureRule, score: float, *, lost: bool
) -> progress_pb2.MeasureScore:
    earlier = [scores.get(rule.measure, 0.0) for scores in state.scores[max(len(state.scores) - rule.rounds + 1, 0) :]]
    enough = len(earlier) == rule.rounds - 1 and all(one >= rule.threshold for one in (*earlier, score))
    return progress_pb2.MeasureScore(
        measure=rule.measure,
        score=score,
        threshold=rule.threshold,
        decided=enough and not lost and state.session.convergence_policy.enabled,
        degraded=lost,
    )
