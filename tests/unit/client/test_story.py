"""A session told in a terminal: nothing that changed the answer goes untold, and nothing that was said is taken for markup."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from google.protobuf import json_format
from rich.console import Console

from agentnet.cli.show import Story
from agentnet.orchestrator.v1 import event_pb2

TURN = {"turn_started": {"turn_id": "t", "agent": "Athena@1.0.0", "round": 1}}


def told(*events: dict[str, Any]) -> str:
    out = StringIO()
    with Story(Console(file=out, width=300)) as story:
        for event in events:
            story.tell(json_format.ParseDict({"actor": "agent:Athena@1.0.0", **event}, event_pb2.SessionEvent()))
    return out.getvalue()


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            {"prompt_reduced": {"tokens_before": 4000, "tokens_after": 900, "parts": ["topic", "memory"]}},
            "topic and memory made shorter: about 4000 tokens would have been, 900 are",
        ),
        ({"signal_received": {"signal": "pause"}, "actor": "user:ann"}, "pause, by user:ann"),
        ({"input_given": {"answer": "Rome [/b]"}}, "answered: Rome [/b]"),
        ({"input_given": {"approved": True}}, "answered: approved"),
        ({"input_given": {"approved": True, "answer": "the rent"}}, "answered: the rent (approved)"),
        ({"input_given": {"expired": True}}, "nobody answered in time: refused"),
        ({"handed_off": {"source": "A", "target": "B", "reason": "asked"}}, "A hands over to B: asked"),
        ({"plan_made": {"planner": "P@1.0.0", "nodes": [{"id": "a"}, {"id": "b"}]}}, "P@1.0.0 plans: a, b"),
        ({"points_contested": {"round": 1, "points": ["price", "time"]}}, "contested: price; time"),
        ({"points_contested": {"round": 2}}, "contested: nothing any more"),
        ({"message_injected": {"sender": "ann", "content": "[red]Mind[/]"}}, "ann: [red]Mind[/]"),
        ({"session_forked": {"session": {"id": "ses_2"}}}, "forked: from here on it is ses_2"),
    ],
)
def test_what_is_beside_the_talk_is_a_line(event: dict[str, Any], line: str) -> None:
    assert told(event).strip() == line


@pytest.mark.parametrize(("restarted", "then"), [(True, "small begins anew"), (False, "small goes on")])
def test_a_failover_is_never_a_silent_splice(restarted: bool, then: str) -> None:
    failed = {"from_model": "big", "to_model": "small", "restarted": restarted, "failure": {"message": "overloaded"}}
    text = told(
        TURN,
        {"tokens_produced": {"text": "Half an "}},
        {"failed_over": failed},
        {"tokens_produced": {"text": "answer"}},
    )
    lines = text.splitlines()
    assert lines[:2] == ["Athena Half an ", f"big failed: overloaded; {then}"]
    assert lines[2] == ("Athena answer" if restarted else "answer")


def test_what_a_model_or_a_bundle_named_is_no_markup() -> None:
    call = {"tool": "[/search]", "arguments": "{}"}
    text = told(
        {"tool_started": {"tool": "[/search]", "call": call}},
        {"tool_finished": {"call": call, "outcome": {"result": "no such tool"}}},
        {"monitor_verdict": {"action": "redact", "rule": "[/pii]", "bundle": "[b]basics"}},
    )
    assert "  [/search] {}" in text
    assert "  [/search] → no such tool" in text
    assert "redact: [/pii] ([b]basics)" in text


def test_a_topic_and_a_failure_are_texts_and_no_markup() -> None:
    session = {"topic_start": "why [/] and [b]?", "rounds_executed": 1, "status": "SESSION_STATUS_FAILED"}
    ended = {**session, "failure": {"message": "no [/]"}}
    text = told({"session_started": {"session": session}}, {"session_finished": {"session": ended}})
    assert "why [/] and [b]?" in text
    assert "after 1 round ·" in text
    assert "no [/]" in text


@pytest.mark.parametrize(
    ("failure", "line"),
    [
        ({"message": "the generation was cancelled"}, "interrupted: the generation was cancelled"),
        ({"message": "overloaded", "retryable": True}, "interrupted: overloaded; trying again"),
        (
            {"message": "ask", "reason": "ERROR_REASON_BUDGET_APPROVAL_REQUIRED", "metadata": {"budget_id": "b1"}},
            "interrupted: ask; POST /v1/budgets/b1/approve, then resume the session",
        ),
    ],
)
def test_an_interruption_says_what_comes_of_it(failure: dict[str, Any], line: str) -> None:
    assert told({"turn_interrupted": {"failure": failure}}).strip() == line
