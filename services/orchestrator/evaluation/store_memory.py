"""The honest fake: runs and their queue in memory, as bytes, so that nobody changes a stored one by accident."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Final

from agentnet.orchestrator.v1 import evaluation_service_pb2 as pb
from services.orchestrator.errors import LeaseLost
from services.orchestrator.evaluation.store import Case, CaseLease, Close, Work
from shared.clock import Clock
from shared.identity import CredentialKind, Principal
from shared.paging import Page

_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)
_RUNNING: Final = pb.EVALUATION_STATUS_RUNNING


@dataclass(slots=True)
class _Run:
    data: bytes
    document: str
    starter: Principal
    cases: Sequence[Case]
    request_id: str | None
    scores: dict[str, bytes] = field(default_factory=dict)

    @property
    def evaluation(self) -> pb.Evaluation:
        return pb.Evaluation.FromString(self.data)


@dataclass(slots=True)
class _Row:
    """One row of evaluation_lease."""

    waiting_since: int
    owner: str | None = None
    fence: int = 0
    tries: int = 0
    expires_at: datetime = _LONG_AGO
    ready: bool = True


class MemoryEvaluationStore:
    """Both stores in one: the queue is `self.queue`."""

    def __init__(self, clock: Clock) -> None:
        self._runs: dict[tuple[str, str], _Run] = {}
        self.queue = MemoryCaseQueue(clock)

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
        for (owner, known), run in self._runs.items():
            if owner == tenant and request_id and run.request_id == request_id:
                return known
        kept = Principal(tenant, starter.subject, starter.roles, CredentialKind.SERVICE)
        self._runs[tenant, evaluation.id] = _Run(
            evaluation.SerializeToString(), document, kept, tuple(cases), request_id
        )
        for case in cases:
            self.queue.add(tenant, case.id)
        return evaluation.id

    async def find(self, tenant: str, evaluation_id: str) -> pb.Evaluation | None:
        run = self._runs.get((tenant, evaluation_id))
        return _with_scores(run) if run else None

    async def every(self, tenant: str, *, suite: str, page: Page) -> Sequence[pb.Evaluation]:
        found = []
        for (owner, _), run in self._runs.items():
            evaluation = run.evaluation
            if owner == tenant and suite in {"", evaluation.suite}:
                evaluation.cases_finished = len(run.scores)
                found.append(evaluation)
        found.sort(key=_order, reverse=True)
        at, last = page.place
        if at is not None:
            found = [evaluation for evaluation in found if _order(evaluation) < (at, last)]
        return found[: page.size + 1]

    async def end(self, tenant: str, evaluation_id: str, close: Close) -> None:
        run = self._runs.get((tenant, evaluation_id))
        if run and run.evaluation.status == _RUNNING:
            _keep(run, close(run.evaluation))

    async def work(self, lease: CaseLease) -> Work | None:
        run, case = self._case(lease)
        evaluation = run.evaluation
        if evaluation.status != _RUNNING:
            return None
        baseline = evaluation.baseline_id
        return Work(evaluation.id, baseline, case.place, case.repetition, run.document, run.starter)

    async def finish(self, lease: CaseLease, score: pb.ScenarioScore, close: Close) -> None:
        self.queue.hold(lease)
        run, case = self._case(lease)
        if run.evaluation.status == _RUNNING:
            run.scores[case.id] = score.SerializeToString()
            if len(run.scores) == len(run.cases):
                _keep(run, close(_with_scores(run)))
        self.queue.release(lease)

    async def drop(self, lease: CaseLease) -> None:
        self.queue.hold(lease)
        self.queue.release(lease)

    def _case(self, lease: CaseLease) -> tuple[_Run, Case]:
        return next(
            (run, case)
            for (tenant, _), run in self._runs.items()
            if tenant == lease.tenant
            for case in run.cases
            if case.id == lease.case_id
        )


class MemoryCaseQueue:
    """Who runs what."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rows: dict[tuple[str, str], _Row] = {}
        self._turn = count()

    async def claim(self, owner: str, *, ttl: timedelta, limit: int) -> Sequence[CaseLease]:
        now = self._clock.now()
        free = [(place, row) for place, row in self._rows.items() if row.ready and row.expires_at < now]
        free.sort(key=lambda found: found[1].waiting_since)
        turn: Counter[str] = Counter()
        fair = []
        for place, row in free:
            turn[place[0]] += 1
            fair.append((turn[place[0]], row.waiting_since, place, row))
        fair.sort(key=lambda found: found[:2])
        return [self._take(place, row, owner, until=now + ttl) for _, _, place, row in fair[:limit]]

    async def renew(self, owner: str, cases: Sequence[str], *, ttl: timedelta) -> set[str]:
        now = self._clock.now()
        held = {
            case_id: row
            for (_, case_id), row in self._rows.items()
            if case_id in cases and row.owner == owner and row.expires_at > now
        }
        for row in held.values():
            row.expires_at = now + ttl
        return set(held)

    async def give_back(self, lease: CaseLease) -> None:
        row = self._rows[lease.tenant, lease.case_id]
        if row.fence == lease.fence:
            row.owner, row.expires_at, row.tries = None, _LONG_AGO, max(row.tries - 1, 0)

    def add(self, tenant: str, case_id: str) -> None:
        self._rows[tenant, case_id] = _Row(next(self._turn))

    def hold(self, lease: CaseLease) -> None:
        """Raises LeaseLost."""
        row = self._rows[lease.tenant, lease.case_id]
        if (row.owner, row.fence) != (lease.owner, lease.fence) or row.expires_at <= self._clock.now():
            raise LeaseLost("another worker runs the case", case_id=lease.case_id)

    def release(self, lease: CaseLease) -> None:
        row = self._rows[lease.tenant, lease.case_id]
        row.owner, row.expires_at, row.ready = None, _LONG_AGO, False

    def _take(self, place: tuple[str, str], row: _Row, owner: str, *, until: datetime) -> CaseLease:
        row.owner, row.expires_at = owner, until
        row.fence += 1
        row.tries += 1
        return CaseLease(*place, owner, row.fence, row.tries)


def _order(evaluation: pb.Evaluation) -> tuple[datetime, str]:
    return evaluation.start_time.ToDatetime(UTC), evaluation.id


def _with_scores(run: _Run) -> pb.Evaluation:
    evaluation = run.evaluation
    ordered = sorted(run.cases, key=lambda case: (case.place, case.repetition))
    evaluation.scores.extend(
        pb.ScenarioScore.FromString(run.scores[case.id]) for case in ordered if case.id in run.scores
    )
    return evaluation


def _keep(run: _Run, closed: pb.Evaluation) -> None:
    del closed.scores[:]
    run.data = closed.SerializeToString()
