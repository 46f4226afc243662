"""The workflow of one run on Temporal: who drives it, what is waited for, and what follows when its home is lost.

It knows ids and never content: what was asked and said is in the log. So a payload is some names at most, whatever the
run is about, and nothing of a tenant's is in Temporal's history.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.exceptions import TimeoutError as TimedOut

NOT_HELD = "NotHeld"
_ONCE = RetryPolicy(maximum_attempts=1)
_ALWAYS = RetryPolicy(initial_interval=timedelta(milliseconds=100), maximum_interval=timedelta(seconds=2))
_LONGEST_TURN = timedelta(hours=24)
_LONGEST_STEPS = timedelta(minutes=10)


@dataclass(frozen=True)
class Run:
    """A run by its names."""

    tenant: str
    session_id: str


@dataclass(frozen=True)
class Home:
    """The worker that drives a run: the queue that it alone reads, and the fence that its writes carry."""

    queue: str
    fence: int


@dataclass(frozen=True)
class Asked:
    """Something asked of a run's home; `work` names a turn or node in flight."""

    run: Run
    fence: int
    work: str = ""


@dataclass(frozen=True)
class Stand:
    """How far a run is: its work in flight; `resting` when it ended or waits, `waiting` in the latter case."""

    working: list[str]
    resting: bool = False
    waiting: bool = False


@dataclass(frozen=True)
class Given:
    """What a workflow starts with, and what it hands to the one that continues it."""

    run: Run
    beat_seconds: float
    longest_history: int
    home: Home | None = None


@workflow.defn(name="agentnet.run")
class RunWorkflow:
    """Finds a home for a run, has it take steps, and waits for turns; as long as there is something to do."""

    def __init__(self) -> None:
        self._woken = False
        self._turns: dict[str, workflow.ActivityHandle[Any]] = {}

    @workflow.signal
    def wake(self) -> None:
        """Something changed about the run: a signal came for it."""
        self._woken = True

    @workflow.run
    async def run(self, given: Given) -> None:
        home = given.home
        while True:
            if home is None:
                self._woken = False
                home = await self._taken(given)
            if home is not None and await self._driven(given, home):
                await workflow.wait_condition(lambda: self._woken)
            elif not self._woken:
                return
            home = None

    async def _taken(self, given: Given) -> Home | None:
        """The home of a run that is ready to be driven; a worker that is full lets another one try."""
        home: Home | None = await workflow.execute_activity(
            "take",
            given.run,
            result_type=Home,
            start_to_close_timeout=timedelta(minutes=1),
            heartbeat_timeout=timedelta(seconds=given.beat_seconds),
            retry_policy=_ALWAYS,
        )
        return home

    async def _driven(self, given: Given, home: Home) -> bool:
        """Drives to where the run rests; whether there is more to come. A home that is lost is followed by another."""
        asked = Asked(given.run, home.fence)
        try:
            stand = await self._steps(given, home, asked)
            while not stand.resting:
                for name in stand.working:
                    if name not in self._turns:
                        self._turns[name] = self._turn(given, home, replace(asked, work=name))
                self._continue_as_new(given, home)
                await workflow.wait_condition(lambda: self._woken or bool(self._ended()))
                stand = await self._heard(given, home, asked)
        except ActivityError as error:
            if not _lost(error):
                await workflow.sleep(given.beat_seconds)
            self._woken = True
            return True
        finally:
            for turn in self._turns.values():
                turn.cancel()
            self._turns.clear()
        return stand.waiting

    async def _heard(self, given: Given, home: Home, asked: Asked) -> Stand:
        """How far the run is by what ended or woke it; turns that ended together are one stand."""
        stands: list[Stand] = [self._turns.pop(name).result() for name in self._ended()]
        if self._woken:
            self._woken = False
            stands.append(await self._steps(given, home, asked))
        return Stand(
            [name for stand in stands for name in stand.working],
            resting=any(stand.resting for stand in stands),
            waiting=any(stand.waiting for stand in stands),
        )

    def _ended(self) -> list[str]:
        return [name for name, turn in self._turns.items() if turn.done()]

    async def _steps(self, given: Given, home: Home, asked: Asked) -> Stand:
        beat = timedelta(seconds=given.beat_seconds)
        stand: Stand = await workflow.execute_activity(
            "go",
            asked,
            result_type=Stand,
            task_queue=home.queue,
            schedule_to_start_timeout=beat,
            start_to_close_timeout=_LONGEST_STEPS,
            heartbeat_timeout=beat,
            retry_policy=_ONCE,
        )
        return stand

    def _turn(self, given: Given, home: Home, asked: Asked) -> workflow.ActivityHandle[Any]:
        """An ordinary activity, for with local ones a killed worker repeated what had been completed."""
        beat = timedelta(seconds=given.beat_seconds)
        return workflow.start_activity(
            "turn",
            asked,
            result_type=Stand,
            task_queue=home.queue,
            schedule_to_start_timeout=beat,
            start_to_close_timeout=_LONGEST_TURN,
            heartbeat_timeout=beat,
            retry_policy=_ONCE,
        )

    def _continue_as_new(self, given: Given, home: Home) -> None:
        """Turns go on at home meanwhile; the next workflow waits for them by activities of its own."""
        info = workflow.info()
        if info.is_continue_as_new_suggested() or info.get_current_history_length() > given.longest_history:
            workflow.continue_as_new(replace(given, home=home))


def _lost(error: ActivityError) -> bool:
    """Whether the home is gone, or no longer has the run; else it met a fault, and the next one is given time."""
    cause = error.cause
    return isinstance(cause, TimedOut) or (isinstance(cause, ApplicationError) and cause.type == NOT_HELD)
