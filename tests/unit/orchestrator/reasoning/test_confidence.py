"""How sure a turn is: the mean of what can be measured of it, the same in its record and in its tree."""

from __future__ import annotations

from typing import Any

import pytest

from agentnet.orchestrator.v1 import turn_pb2
from services.orchestrator.reasoning import confidence


def turn(**given: Any) -> turn_pb2.Turn:
    plain: dict[str, Any] = {"prompt": "How does failover lose nothing?", "content": "Nothing is lost.", "attempt": 1}
    return turn_pb2.Turn(**{**plain, **given})


def measured(found: turn_pb2.Turn, *, verdicts: int = 0) -> dict[str, float]:
    return dict(confidence.factors(found, confidence.steps(found), verdicts=verdicts))


def test_what_there_was_nothing_of_does_not_count() -> None:
    assert measured(turn()) == {"support": 0.5, "attempts": 1.0, "policy": 1.0}


def test_support_is_the_share_of_the_answers_words_that_were_given() -> None:
    context = turn_pb2.TurnContext(short_term=["Apollo: lost writes come back"])
    assert measured(turn(context=context))["support"] == 1.0
    assert measured(turn(content="Nothing is lost: bananas.", context=context))["support"] == pytest.approx(2 / 3)
    assert measured(turn(content="Bananas ripen."))["support"] == 0


@pytest.mark.parametrize(
    ("given", "support"),
    [("Lossless.", 0), ("Lossless, then loss", 1), ("a_loss_a", 1), ("LOSS", 1), ("2loss", 0), ("lossloss loss", 1)],
)
def test_a_word_counts_that_stands_alone_in_what_was_given(given: str, support: int) -> None:
    context = turn_pb2.TurnContext(short_term=[given])
    assert measured(turn(content="Loss.", context=context))["support"] == support


def test_memory_tools_tries_and_policy_count() -> None:
    context = turn_pb2.TurnContext()
    context.semantic_refs.add(id="mem_1", score=0.9)
    context.episodic_refs.add(id="mem_2", score=0.5)
    calls = [turn_pb2.ToolUse(tool="a"), turn_pb2.ToolUse(tool="b", failed=True)]
    found = measured(turn(context=context, tool_calls=calls, attempt=2), verdicts=1)
    assert found == {"support": 0.5, "memory": pytest.approx(0.7), "tools": 0.5, "attempts": 0.5, "policy": 0.0}


def test_the_record_says_the_mean_and_by_what() -> None:
    found = turn()
    confidence.judge(found, verdicts=0)
    assert found.confidence == pytest.approx((0.5 + 1 + 1) / 3)
    assert found.confidence_basis == "evidence"
