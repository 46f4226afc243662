"""What a workflow of Temporal does when its home stumbles, or a signal comes while it looks for one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, RetryState

from services.orchestrator.drivers.workflow import NOT_HELD, Given, Home, Run, RunWorkflow, Stand

GIVEN = Given(Run("ten", "ses_1"), beat_seconds=2.5, longest_history=100)
HOME = Home("mine", 1)
OVER = Stand([], resting=True)


class Played:
    """Temporal, answering activities in their order. `slept` are the pauses that were asked for."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.slept: list[float] = []

    async def execute_activity(self, _name: str, *_arguments: Any, **_options: Any) -> Any:
        answer = self.answers.pop(0)
        answer = answer() if callable(answer) else answer
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    async def wait_condition(self, condition: Callable[[], bool]) -> None:
        assert condition(), "it would wait for ever"


def broken(kind: str) -> ActivityError:
    error = ActivityError(
        "it broke", scheduled_event_id=1, started_event_id=2, identity="one", activity_type="go", activity_id="1",
        retry_state=RetryState.MAXIMUM_ATTEMPTS_REACHED,
    )  # fmt: skip
    error.__cause__ = ApplicationError("it broke", type=kind)
    return error


async def played(monkeypatch: pytest.MonkeyPatch, running: RunWorkflow, *answers: Any) -> list[float]:
    """The pauses of a workflow that runs to its end by these answers."""
    temporal = Played(*answers)
    for name in ("execute_activity", "sleep", "wait_condition"):
        monkeypatch.setattr(workflow, name, getattr(temporal, name))
    await running.run(GIVEN)
    assert temporal.answers == []
    return temporal.slept


@pytest.mark.parametrize(("kind", "pauses"), [("STORE_AWAY", [2.5]), (NOT_HELD, [])])
async def test_a_home_that_met_a_fault_is_given_time_and_one_that_lost_the_run_is_followed_at_once(
    monkeypatch: pytest.MonkeyPatch, kind: str, pauses: list[float]
) -> None:
    assert await played(monkeypatch, RunWorkflow(), HOME, broken(kind), HOME, OVER) == pauses


async def test_a_signal_while_no_home_takes_the_run_has_it_ask_again(monkeypatch: pytest.MonkeyPatch) -> None:
    running = RunWorkflow()
    assert await played(monkeypatch, running, running.wake, HOME, OVER) == []
