"""The numbers of an evaluation."""

from __future__ import annotations

import pytest

from services.orchestrator.evaluation import metrics


def test_coverage_is_the_share_of_keywords_said_as_whole_words() -> None:
    text = "We use Fail-over, and replicas everywhere."
    assert metrics.coverage(text, ["fail over", "replicas", "replica", "quorum"], "") == 0.5


def test_coverage_without_keywords_is_of_the_topics_own_words() -> None:
    assert metrics.coverage("the network has an edge", [], "What is the edge of the partition") == 0.5
    assert metrics.coverage("anything", [], "what is it") == 1.0


def test_novelty_falls_with_repetition_and_is_nothing_for_silence() -> None:
    assert metrics.novelty(["one two three four"]) == 1
    assert metrics.novelty(["one two three", "one two three"]) == 0.5
    assert metrics.novelty(["too short"]) == 1
    assert metrics.novelty(["", " "]) == 0


def test_coherence_takes_the_nearer_of_the_turn_before_and_the_topic() -> None:
    east, north = (1.0, 0.0), (0.0, 1.0)
    assert metrics.coherence(east, [east, east]) == 1
    assert metrics.coherence(east, [north, north]) == 0.5, "the first is off the topic, the second follows the first"
    assert metrics.coherence(east, [east, (-1.0, 0.0)]) == 0.5, "opposite counts as none"
    assert metrics.coherence(east, []) == 0


@pytest.mark.parametrize(
    ("passed", "runs", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634), (81, 263, 0.2553, 0.3662)],
)
def test_the_interval_is_wilsons(passed: int, runs: int, low: float, high: float) -> None:
    """81 of 263 is Newcombe's example (Statistics in Medicine 17, 1998), whose table gives 0.2553 to 0.3662."""
    found = metrics.wilson(passed, runs)
    assert (found.rate, round(found.low, 4), round(found.high, 4)) == (passed / runs, low, high)


def test_nothing_is_known_without_runs() -> None:
    assert metrics.wilson(0, 0) == metrics.Interval(0, 0, 1)
