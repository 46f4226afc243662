"""Suites as they are read, and the suites that are shipped."""

from __future__ import annotations

from importlib.resources import files

import pytest

from services.orchestrator.errors import SuiteInvalid
from services.orchestrator.evaluation import document
from services.orchestrator.evaluation.suite import RuleViolations, recast

ONE = "{suite: s, scenarios: [{name: one, agents: [Athena], topic: Edge, success_criteria: [%s]}]}"


@pytest.mark.parametrize(
    ("criterion", "fault"),
    [
        ("{type: keyword_presence}", "must_include"),
        ("{type: keyword_presence, must_include: []}", "must_include"),
        ("{type: keyword_presence, must_include: [a], min_score: 1}", "min_score"),
        ("{type: semantic_score, min_score: 0.5}", "one of them"),
        ("{type: semantic_score, min_score: 0.5, reference: a, reference_id: b}", "one of them"),
        ("{type: semantic_score, reference_id: b}", "min_score"),
        ("{type: rule_violations, max_violations: -1}", "max_violations"),
        ("{type: cost_limit, max_micros_usd: 0.5}", "max_micros_usd"),
        ("{type: latency_limit, max_seconds: 0}", "max_seconds"),
        ("{type: stop_reason, any_of: [never]}", "any_of"),
        ("{type: mood}", "mood"),
    ],
)
def test_a_criterion_that_breaks_its_shape_is_refused(criterion: str, fault: str) -> None:
    with pytest.raises(SuiteInvalid, match=fault):
        document.read(ONE % criterion)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "suite: s",
        "suite: s\nscenarios: []",
        "a: &a 1\nb: *a",
        "x: " * 40,
        "a: !!python/none 1",
        "\x07",
        "[" * 40,
    ],
)
def test_what_is_no_suite_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(SuiteInvalid) as raised:
        document.read(text)
    assert raised.value.field == "suite"
    assert "\n" not in raised.value.message


def test_a_suite_is_the_same_after_it_was_written() -> None:
    suite = document.read(ONE % "{type: rule_violations, min_violations: 1}, {type: cost_limit, max_micros_usd: 7}")
    again = document.read(document.written(suite))
    assert (again, again.digest) == (suite, suite.digest)
    assert document.read("# a comment\n" + ONE % "").digest == document.read(ONE % "").digest != suite.digest


def test_violations_without_numbers_mean_none_and_a_demand_alone_has_no_upper_limit() -> None:
    assert RuleViolations().most == 0
    assert RuleViolations(min_violations=1).most is None
    assert RuleViolations(min_violations=1, max_violations=3).most == 3


def test_too_many_cases_are_refused() -> None:
    suite = document.read(ONE % "")
    many = recast(suite, {}, repeats=100)
    assert many.scenarios[0].repeats == 100
    scenarios = ",".join(f"{{name: n{number}, agents: [A], topic: t, repeats: 100}}" for number in range(21))
    with pytest.raises(SuiteInvalid, match="2100 cases"):
        document.read(f"{{suite: s, scenarios: [{scenarios}]}}")


@pytest.mark.parametrize("name", ["adversarial", "baseline"])
def test_a_shipped_suite_is_one(name: str) -> None:
    suite = document.read((files("agentnet.testing") / "suites" / f"{name}.yaml").read_text())
    assert suite.suite == name
    assert all(scenario.success_criteria for scenario in suite.scenarios)
