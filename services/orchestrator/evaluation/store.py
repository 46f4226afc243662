"""What evaluation asks of storage: runs with their scores, and the queue of cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from agentnet.orchestrator.v1 import evaluation_service_pb2 as pb
from shared.identity import Principal
from shared.paging import Page

# Makes of a run with all its scores the run as it will stay.
Close = Callable[[pb.Evaluation], pb.Evaluation]


@dataclass(frozen=True, slots=True)
class Case:
    """One scenario of a suite, by its place there, once."""

    id: str
    place: int
    repetition: int


@dataclass(frozen=True, slots=True)
class CaseLease:
    """The right to score one case, until another one's fence is higher."""

    tenant: str
    case_id: str
    owner: str
    fence: int
    tries: int


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker needs to know to run a case. `document` is the suite as it is run."""

    evaluation_id: str
    baseline_id: str
    place: int
    repetition: int
    document: str
    starter: Principal


class EvaluationStore(Protocol):
    """Where runs are kept, one tenant a call."""

    async def start(
        self,
        tenant: str,
        evaluation: pb.Evaluation,
        document: str,
        starter: Principal,
        cases: Sequence[Case],
        *,
        request_id: str | None,
    ) -> str:
        """Stores a run and queues its cases; the id is its own, or the earlier one's of this request_id."""

    async def find(self, tenant: str, evaluation_id: str) -> pb.Evaluation | None:
        """A run with the scores there are, in the suite's order."""

    async def every(self, tenant: str, *, suite: str, page: Page) -> Sequence[pb.Evaluation]:
        """Runs without scores but with their count, newest first, at most `page.size` + 1. The cursor is (time, id)."""

    async def end(self, tenant: str, evaluation_id: str, close: Close) -> None:
        """Ends a run that is still running, as `close` makes it."""

    async def work(self, lease: CaseLease) -> Work | None:
        """What to do; None when the run has ended and there is nothing to do."""

    async def finish(self, lease: CaseLease, score: pb.ScenarioScore, close: Close) -> None:
        """Keeps a case's score and takes it off the queue; the last case ends its run, as `close` makes it.

        A run that was ended meanwhile takes no score. Raises LeaseLost.
        """

    async def drop(self, lease: CaseLease) -> None:
        """Takes a needless case off the queue."""


class CaseQueue(Protocol):
    """Which worker runs which case, across tenants."""

    async def claim(self, owner: str, *, ttl: timedelta, limit: int) -> Sequence[CaseLease]:
        """Takes cases that nobody, or nobody living, runs; the longest waiting first, tenants in turn."""

    async def renew(self, owner: str, cases: Sequence[str], *, ttl: timedelta) -> set[str]:
        """Keeps the leases of these cases; those that are still held."""

    async def give_back(self, lease: CaseLease) -> None:
        """Lets another worker take it at once; this try does not count."""
