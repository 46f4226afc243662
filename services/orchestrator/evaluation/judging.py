"""What a case came to: observations against criteria, decided without I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from agentnet.common.v1 import failure_pb2
from agentnet.orchestrator.v1 import evaluation_pb2 as noun
from agentnet.orchestrator.v1 import evaluation_service_pb2 as pb
from services.orchestrator.evaluation import metrics
from services.orchestrator.evaluation.suite import (
    CostLimit,
    Criterion,
    KeywordAbsence,
    KeywordPresence,
    LatencyLimit,
    RuleViolations,
    Scenario,
    SemanticScore,
    StopReason,
)

_GOOD_ENDS: Final = ("completed", "converged", "max_rounds")
_OUTCOME: Final = 32_768
_DETAIL: Final = 1000


@dataclass(frozen=True, slots=True)
class Said:
    """One finished turn."""

    agent: str
    content: str


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything about a session that is judged. `stop_reason` is empty when it never began."""

    session_id: str = ""
    agents: tuple[str, ...] = ()
    turns: tuple[Said, ...] = ()
    violations: int = 0
    cost_micros_usd: int = 0
    seconds: float = 0.0
    stop_reason: str = ""
    failure: failure_pb2.Failure | None = None

    @property
    def text(self) -> str:
        return "\n".join(turn.content for turn in self.turns)

    @property
    def outcome(self) -> str:
        lines = (f"{turn.agent.partition('@')[0]}: {turn.content.strip()}" for turn in self.turns)
        return "\n".join(lines)[:_OUTCOME]


@dataclass(frozen=True, slots=True)
class Meaning:
    """What embeddings say: how coherent the turns are, and how near they come to each semantic criterion's reference.

    A reference that could not be found has no likeness.
    """

    coherence: float = 0.0
    likeness: Mapping[int, float] | None = None


def score(scenario: Scenario, observed: Observed, meaning: Meaning, *, repetition: int) -> pb.ScenarioScore:
    """The case's entry in its run."""
    verdicts = [
        _verdict(criterion, observed, (meaning.likeness or {}).get(place))
        for place, criterion in enumerate(scenario.success_criteria)
    ]
    if not any(isinstance(criterion, StopReason) for criterion in scenario.success_criteria):
        ended_well = observed.stop_reason in _GOOD_ENDS
    else:
        ended_well = bool(observed.stop_reason)
    made = pb.ScenarioScore(
        name=scenario.name,
        session_id=observed.session_id,
        coverage_score=metrics.coverage(observed.text, _required(scenario.success_criteria), scenario.topic),
        novelty_score=metrics.novelty([turn.content for turn in observed.turns]),
        coherence_score=meaning.coherence,
        rule_violations_count=observed.violations,
        passed=ended_well and all(verdict.met for verdict in verdicts),
        repetition=repetition,
        verdicts=verdicts,
        outcome=observed.outcome,
        cost_micros_usd=observed.cost_micros_usd,
        seconds=observed.seconds,
        agents=observed.agents,
        stop_reason=observed.stop_reason,
        failure=observed.failure,
    )
    parts = [made.coverage_score, made.novelty_score, made.coherence_score, *(verdict.score for verdict in verdicts)]
    made.score = sum(parts) / len(parts)
    return made


def _required(criteria: Sequence[Criterion]) -> list[str]:
    return [
        keyword
        for criterion in criteria
        if isinstance(criterion, KeywordPresence)
        for keyword in criterion.must_include
    ]


def _verdict(criterion: Criterion, observed: Observed, likeness: float | None) -> noun.CriterionVerdict:
    graded, met, detail = _judged(criterion, observed, likeness)
    return noun.CriterionVerdict(type=criterion.type, met=met, score=graded, detail=detail[:_DETAIL])


def _judged(criterion: Criterion, observed: Observed, likeness: float | None) -> tuple[float, bool, str]:
    match criterion:
        case KeywordPresence():
            found = _presence(criterion.must_include, observed.text)
        case KeywordAbsence():
            found = _absence(criterion.must_exclude, observed.text)
        case SemanticScore():
            found = _semantic(criterion, likeness)
        case RuleViolations():
            found = _violations(criterion, observed.violations)
        case CostLimit():
            cost = observed.cost_micros_usd
            found = _limit(cost, criterion.max_micros_usd, f"{cost} of {criterion.max_micros_usd} micro-USD")
        case LatencyLimit():
            took = observed.seconds
            found = _limit(took, criterion.max_seconds, f"{took:.1f} of {criterion.max_seconds:g} seconds")
        case StopReason():
            met = observed.stop_reason in criterion.any_of
            found = float(met), met, f"ended by {observed.stop_reason or 'nothing'}"
    return found


def _absence(keywords: Sequence[str], text: str) -> tuple[float, bool, str]:
    said = [keyword for keyword in keywords if metrics.said(keyword, text)]
    return 1 - len(said) / len(keywords), not said, f"said: {', '.join(said)}" if said else "none was said"


def _presence(keywords: Sequence[str], text: str) -> tuple[float, bool, str]:
    missing = [keyword for keyword in keywords if not metrics.said(keyword, text)]
    share = 1 - len(missing) / len(keywords)
    return share, not missing, f"missing: {', '.join(missing)}" if missing else "all were said"


def _semantic(criterion: SemanticScore, likeness: float | None) -> tuple[float, bool, str]:
    if likeness is None:
        return 0.0, False, f"there is no reference {criterion.reference_id or ''}".strip()
    return likeness, likeness >= criterion.min_score, f"{likeness:.3f} of at least {criterion.min_score:g}"


def _violations(criterion: RuleViolations, count: int) -> tuple[float, bool, str]:
    met = count >= criterion.min_violations and (criterion.most is None or count <= criterion.most)
    return float(met), met, f"{count} violations"


def _limit(value: float, limit: float, detail: str) -> tuple[float, bool, str]:
    return float(value <= limit), value <= limit, detail
