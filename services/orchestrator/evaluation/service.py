"""EvaluationService: convert in, one call of the domain, convert out."""

from __future__ import annotations

from typing import Any

from agentnet.orchestrator.v1 import evaluation_service_pb2 as pb
from agentnet.orchestrator.v1 import evaluation_service_pb2_grpc
from services.orchestrator.evaluation import convert
from services.orchestrator.evaluation.evaluations import Evaluations
from shared import fields
from shared.identity import current

EVALUATIONS = "agentnet.orchestrator.v1.EvaluationService"


class EvaluationService(evaluation_service_pb2_grpc.EvaluationServiceServicer):
    """Runs suites and compares what they came to."""

    def __init__(self, evaluations: Evaluations) -> None:
        self._evaluations = evaluations

    async def RunEvaluation(self, request: pb.RunEvaluationRequest, context: Any) -> pb.RunEvaluationResponse:
        started = await self._evaluations.start(current(), convert.wanted(request))
        return pb.RunEvaluationResponse(evaluation=started)

    async def GetEvaluation(self, request: pb.GetEvaluationRequest, context: Any) -> pb.GetEvaluationResponse:
        evaluation_id = fields.identifier(request.evaluation_id, "evaluation_id")
        found = await self._evaluations.find(current().tenant_id, evaluation_id)
        return pb.GetEvaluationResponse(evaluation=found)

    async def ListEvaluations(self, request: pb.ListEvaluationsRequest, context: Any) -> pb.ListEvaluationsResponse:
        suite, asked = convert.listing(request)
        found = await self._evaluations.every(current().tenant_id, suite=suite, page=asked.page)
        return convert.listed(found, asked)

    async def CompareEvaluations(
        self, request: pb.CompareEvaluationsRequest, context: Any
    ) -> pb.CompareEvaluationsResponse:
        candidate_id, baseline = convert.compare(request)
        compared = await self._evaluations.compare(current().tenant_id, candidate_id, baseline)
        return pb.CompareEvaluationsResponse(comparison=compared)

    async def CancelEvaluation(self, request: pb.CancelEvaluationRequest, context: Any) -> pb.CancelEvaluationResponse:
        evaluation_id = fields.identifier(request.evaluation_id, "evaluation_id")
        ended = await self._evaluations.cancel(current().tenant_id, evaluation_id)
        return pb.CancelEvaluationResponse(evaluation=ended)
