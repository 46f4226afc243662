"""Rules over numbers: what a turn used, how sure it is, how often it went round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import gt, lt
from typing import Any, Final

from shared.monitors.rules import MEASURED, RANK, Action, Bundle, Mode, Rule, RuleType, Target, Verdict

RESOURCES: Final = ("tokens", "cost_micros_usd", "iterations", "tool_calls", "seconds", "output_characters")
WARN_AT: Final = 0.8


@dataclass(frozen=True, slots=True)
class Measured:
    """A rule and the number that broke it, or came near."""

    verdict: Verdict
    metric: str
    value: float
    bound: float


def judge_facts(bundles: Sequence[Bundle], facts: Mapping[str, float], target: Target) -> list[Measured]:
    """What the rules say of the numbers there are; a number that is not given breaks nothing."""
    found = [
        measured
        for bundle in bundles
        for rule in bundle.rules
        if rule.type in MEASURED and rule.target in (None, target)
        if (measured := _judged(rule, bundle, facts, target))
    ]
    return sorted(found, key=lambda one: -RANK.index(one.verdict.action))


def _judged(rule: Rule, bundle: Bundle, facts: Mapping[str, float], target: Target) -> Measured | None:
    params: Mapping[str, Any] = rule.params
    metric = str(params.get("resource" if rule.type is RuleType.RESOURCE else "metric", ""))
    value = facts.get(metric)
    if value is None:
        return None
    action = rule.action or (Action.WARN if rule.severity.value == "minor" else Action.BLOCK)
    if bundle.mode is Mode.PERMISSIVE and action in (Action.BLOCK, Action.REQUIRE_APPROVAL):
        action = Action.WARN
    bound, warns = _broken(rule, params, value)
    if bound is None:
        return None
    verdict = Verdict(rule, bundle.label, Action.WARN if warns else action, target, 0, 0, metric)
    return Measured(verdict, metric, value, bound)


def _broken(rule: Rule, params: Mapping[str, Any], value: float) -> tuple[float | None, bool]:
    """The bound that is broken, and whether it is only close."""
    if rule.type is RuleType.RESOURCE:
        limit = float(params["limit"])
        share = float(params.get("warn_at", WARN_AT))
        if value > limit:
            return limit, False
        return (limit, True) if value >= limit * share else (None, False)
    for name, broken in (("max", gt), ("min", lt)):
        if name in params and broken(value, float(params[name])):
            return float(params[name]), False
    return None, False
