"""Evaluations of a mesh: run a suite, wait for its scores, compare, list, end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from agentnet.client.calls import unary
from agentnet.client.transport import Transport
from agentnet.orchestrator.v1 import evaluation_pb2, evaluation_service_pb2, evaluation_service_pb2_grpc

_POLL_SECONDS = 0.5

Evaluation = evaluation_service_pb2.Evaluation
Seen = Callable[[Evaluation], None]


class Evaluations:
    """Suites of scenarios, run and scored by the mesh. A run goes on whether or not anyone waits for it."""

    def __init__(self, transport: Transport) -> None:
        self._stub = evaluation_service_pb2_grpc.EvaluationServiceStub(transport.channel)
        self._call = transport.options

    async def start(
        self,
        suite: str | Path,
        *,
        agents: Mapping[str, str] | None = None,
        repeats: int = 0,
        baseline_id: str = "",
        request_id: str = "",
    ) -> Evaluation:
        """Accepts a suite, a text or a file of YAML or JSON, and returns at once.

        `agents` says who speaks in place of whom, such as {"Athena": "Athena@1.1.0"}.
        """
        text = await asyncio.to_thread(suite.read_text, encoding="utf-8") if isinstance(suite, Path) else suite
        request = evaluation_service_pb2.RunEvaluationRequest(
            suite=text, agents=agents or {}, repeats=repeats, baseline_id=baseline_id, request_id=request_id
        )
        return (await unary(self._stub.RunEvaluation(request, **self._call()))).evaluation

    async def wait(self, evaluation_id: str, *, seen: Seen | None = None) -> Evaluation:
        """The run when it has ended; `seen` gets it each time it has a new score."""
        told = -1
        while True:
            found = await self.get(evaluation_id)
            if seen is not None and found.cases_finished != told:
                told = found.cases_finished
                seen(found)
            if found.status != evaluation_service_pb2.EVALUATION_STATUS_RUNNING:
                return found
            await asyncio.sleep(_POLL_SECONDS)

    async def run(
        self, suite: str | Path, *, agents: Mapping[str, str] | None = None, repeats: int = 0, baseline_id: str = ""
    ) -> Evaluation:
        """Runs a suite to its end."""
        started = await self.start(suite, agents=agents, repeats=repeats, baseline_id=baseline_id)
        return await self.wait(started.id)

    async def get(self, evaluation_id: str) -> Evaluation:
        """A run with its scores so far."""
        request = evaluation_service_pb2.GetEvaluationRequest(evaluation_id=evaluation_id)
        return (await unary(self._stub.GetEvaluation(request, **self._call()))).evaluation

    async def list(self, *, suite: str = "") -> AsyncIterator[Evaluation]:
        """Runs without their scores, newest first, page by page."""
        token = ""
        while True:
            request = evaluation_service_pb2.ListEvaluationsRequest(suite=suite, page_token=token)
            page = await unary(self._stub.ListEvaluations(request, **self._call()))
            for found in page.evaluations:
                yield found
            if not (token := page.next_page_token):
                return

    async def compare(self, candidate_id: str, baseline: str | Evaluation) -> evaluation_pb2.Comparison:
        """A run beside an earlier one: of this mesh by its id, or of any mesh as it was kept."""
        request = evaluation_service_pb2.CompareEvaluationsRequest(candidate_id=candidate_id)
        if isinstance(baseline, str):
            request.baseline_id = baseline
        else:
            request.baseline.CopyFrom(baseline)
        return (await unary(self._stub.CompareEvaluations(request, **self._call()))).comparison

    async def cancel(self, evaluation_id: str) -> Evaluation:
        """Ends a run; what has its score keeps it."""
        request = evaluation_service_pb2.CancelEvaluationRequest(evaluation_id=evaluation_id)
        return (await unary(self._stub.CancelEvaluation(request, **self._call()))).evaluation
