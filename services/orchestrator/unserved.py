"""Services the contract has and this mesh does not serve yet: each call says so, and what to use instead."""

from __future__ import annotations

from typing import Any, Final, NoReturn

from agentnet.orchestrator.v1 import evaluation_service_pb2_grpc
from shared.errors import Unimplemented

_LOG: Final = "start the scenario as a session and score its log (SessionService.WatchSession)"


class EvaluationService(evaluation_service_pb2_grpc.EvaluationServiceServicer):
    """Evaluation."""

    async def RunEvaluation(self, request: Any, context: Any) -> NoReturn:
        _refuse("RunEvaluation", _LOG)

    async def GetEvaluation(self, request: Any, context: Any) -> NoReturn:
        _refuse("GetEvaluation", _LOG)


def _refuse(method: str, instead: str) -> NoReturn:
    raise Unimplemented(f"this version of the mesh does not serve {method}; {instead}", method=method)
