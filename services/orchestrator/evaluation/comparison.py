"""A run summed up, and beside an earlier one: what got worse, by how much, and what is said differently."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Final

from agentnet.orchestrator.v1 import evaluation_pb2 as noun
from agentnet.orchestrator.v1 import evaluation_service_pb2 as pb
from services.orchestrator.evaluation import metrics

_DIFF: Final = 16_384


def success(scores: Sequence[pb.ScenarioScore]) -> noun.SuccessRate:
    """How often cases passed, with its interval."""
    passed, runs = sum(score.passed for score in scores), len(scores)
    found = metrics.wilson(passed, runs)
    return noun.SuccessRate(passed=passed, runs=runs, rate=found.rate, low=found.low, high=found.high)


def summaries(scores: Iterable[pb.ScenarioScore]) -> list[noun.ScenarioSummary]:
    """One a scenario, in the order of their first scores."""
    return [_summary(name, found) for name, found in _by_name(scores).items()]


def compare(baseline: pb.Evaluation, candidate: pb.Evaluation) -> noun.Comparison:
    """The candidate beside the baseline. Both have ended."""
    before, now = _by_name(baseline.scores), _by_name(candidate.scores)
    differences = [_difference(name, before[name], now[name]) for name in now if name in before]
    return noun.Comparison(
        baseline_id=baseline.id,
        candidate_id=candidate.id,
        scenarios=differences,
        removed=[name for name in before if name not in now],
        added=[name for name in now if name not in before],
        regression_score=max((difference.regression_score for difference in differences), default=0.0),
    )


def _by_name(scores: Iterable[pb.ScenarioScore]) -> dict[str, list[pb.ScenarioScore]]:
    found: dict[str, list[pb.ScenarioScore]] = {}
    for score in scores:
        found.setdefault(score.name, []).append(score)
    return found


def _summary(name: str, scores: Sequence[pb.ScenarioScore]) -> noun.ScenarioSummary:
    return noun.ScenarioSummary(
        name=name,
        success=success(scores),
        coverage_score=fmean(score.coverage_score for score in scores),
        novelty_score=fmean(score.novelty_score for score in scores),
        coherence_score=fmean(score.coherence_score for score in scores),
        rule_violations=fmean(score.rule_violations_count for score in scores),
        score=fmean(score.score for score in scores),
        mean_cost_micros_usd=round(fmean(score.cost_micros_usd for score in scores)),
        mean_seconds=fmean(score.seconds for score in scores),
    )


def _difference(
    name: str, before: Sequence[pb.ScenarioScore], now: Sequence[pb.ScenarioScore]
) -> noun.ScenarioDifference:
    was, is_now = _summary(name, before), _summary(name, now)
    lost = max(was.success.rate - is_now.success.rate, was.score - is_now.score, 0.0)
    apart = was.success.low > is_now.success.high or is_now.success.low > was.success.high
    return noun.ScenarioDifference(
        name=name,
        baseline=was,
        candidate=is_now,
        regression_score=min(lost, 1.0),
        significant=apart,
        outcome_diff=_diff(before[0].outcome, now[0].outcome),
        baseline_agents=before[0].agents,
        candidate_agents=now[0].agents,
    )


def _diff(before: str, now: str) -> str:
    lines = difflib.unified_diff(before.splitlines(), now.splitlines(), "baseline", "candidate", lineterm="")
    return "\n".join(lines)[:_DIFF]
