"""Evaluations as callers know them: start, read, compare, end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agentnet.orchestrator.v1 import evaluation_pb2 as noun
from agentnet.orchestrator.v1 import evaluation_service_pb2 as pb
from services.orchestrator.errors import EvaluationNotFound, EvaluationRunning
from services.orchestrator.evaluation import comparison, document
from services.orchestrator.evaluation.store import Case, EvaluationStore
from services.orchestrator.evaluation.suite import Suite, recast
from shared.clock import Clock
from shared.errors import InvalidArgument
from shared.identity import Principal
from shared.ids import Ids
from shared.paging import Page

RUNNING = pb.EVALUATION_STATUS_RUNNING


@dataclass(frozen=True, slots=True)
class Wanted:
    """A parsed request for a run."""

    suite: Suite
    agents: Mapping[str, str]
    repeats: int = 0
    baseline_id: str = ""
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Evaluations:
    """The evaluations of all tenants, one tenant a call."""

    store: EvaluationStore
    clock: Clock
    ids: Ids

    async def start(self, starter: Principal, wanted: Wanted) -> pb.Evaluation:
        """Accepts a suite; its cases wait for workers. Raises EvaluationNotFound for the baseline, and SuiteInvalid."""
        tenant = starter.tenant_id
        if wanted.baseline_id:
            await self._stored(tenant, wanted.baseline_id)
        suite = _cast(wanted)
        cases = [
            Case(self.ids.new("evc"), place, repetition)
            for place, scenario in enumerate(suite.scenarios)
            for repetition in range(1, scenario.repeats + 1)
        ]
        made = pb.Evaluation(
            id=self.ids.new("evl"),
            suite=suite.suite,
            status=RUNNING,
            cases=len(cases),
            baseline_id=wanted.baseline_id,
            agents=wanted.agents,
            suite_digest=wanted.suite.digest,
        )
        made.start_time.FromDatetime(self.clock.now())
        text = document.written(suite)
        kept = await self.store.start(tenant, made, text, starter, cases, request_id=wanted.request_id)
        return await self.find(tenant, kept)

    async def find(self, tenant: str, evaluation_id: str) -> pb.Evaluation:
        """A run, summed up as far as it is. Raises EvaluationNotFound."""
        return await self._compared(tenant, summed_up(await self._stored(tenant, evaluation_id)))

    async def every(self, tenant: str, *, suite: str, page: Page) -> Sequence[pb.Evaluation]:
        """Runs without scores, newest first, at most `page.size` + 1."""
        found = await self.store.every(tenant, suite=suite, page=page)
        for evaluation in found:
            evaluation.ClearField("comparison")
        return found

    async def compare(self, tenant: str, candidate_id: str, baseline: pb.Evaluation | str) -> noun.Comparison:
        """Raises EvaluationNotFound and EvaluationRunning."""
        before = await self._ended(tenant, baseline) if isinstance(baseline, str) else baseline
        return comparison.compare(before, await self._ended(tenant, candidate_id))

    async def cancel(self, tenant: str, evaluation_id: str) -> pb.Evaluation:
        """Ends a run that is running. Raises EvaluationNotFound."""
        await self._stored(tenant, evaluation_id)
        await self.store.end(tenant, evaluation_id, self._cancelled)
        return await self.find(tenant, evaluation_id)

    async def baseline(self, tenant: str, evaluation_id: str) -> pb.Evaluation | None:
        """A run to compare with, if it has ended."""
        found = await self.store.find(tenant, evaluation_id) if evaluation_id else None
        return found if found and found.status != RUNNING else None

    def completed(self, whole: pb.Evaluation, baseline: pb.Evaluation | None) -> pb.Evaluation:
        """A run whose last case has ended, as it will stay."""
        whole.status = pb.EVALUATION_STATUS_COMPLETED
        whole.end_time.FromDatetime(self.clock.now())
        if baseline is not None:
            whole.comparison.CopyFrom(comparison.compare(baseline, whole))
        return whole

    def _cancelled(self, evaluation: pb.Evaluation) -> pb.Evaluation:
        evaluation.status = pb.EVALUATION_STATUS_CANCELLED
        evaluation.end_time.FromDatetime(self.clock.now())
        return evaluation

    async def _compared(self, tenant: str, found: pb.Evaluation) -> pb.Evaluation:
        """With the comparison, also when the baseline ended after the run itself."""
        if found.status != RUNNING and found.baseline_id and not found.HasField("comparison"):
            baseline = await self.baseline(tenant, found.baseline_id)
            if baseline is not None:
                found.comparison.CopyFrom(comparison.compare(baseline, found))
        return found

    async def _ended(self, tenant: str, evaluation_id: str) -> pb.Evaluation:
        found = await self._stored(tenant, evaluation_id)
        if found.status == RUNNING:
            raise EvaluationRunning("the evaluation has not ended; wait for it", evaluation_id=evaluation_id)
        return found

    async def _stored(self, tenant: str, evaluation_id: str) -> pb.Evaluation:
        found = await self.store.find(tenant, evaluation_id)
        if found is None:
            raise EvaluationNotFound(f"no evaluation {evaluation_id}", evaluation_id=evaluation_id)
        return found


def _cast(wanted: Wanted) -> Suite:
    try:
        suite = recast(wanted.suite, wanted.agents, repeats=wanted.repeats)
    except ValueError as error:
        raise InvalidArgument(f"with these agents a scenario breaks its rules: {error}", field="agents") from None
    document.check_size(suite)
    return suite


def summed_up(evaluation: pb.Evaluation) -> pb.Evaluation:
    """The run with what follows from its scores."""
    evaluation.cases_finished = len(evaluation.scores)
    evaluation.success.CopyFrom(comparison.success(evaluation.scores))
    del evaluation.summaries[:]
    evaluation.summaries.extend(comparison.summaries(evaluation.scores))
    return evaluation
