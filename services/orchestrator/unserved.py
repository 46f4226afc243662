"""Services the contract has and this mesh does not serve yet: each call says so, with a reason, instead of not being there."""

from __future__ import annotations

from typing import Any, NoReturn

from agentnet.orchestrator.v1 import evaluation_service_pb2_grpc, task_graph_service_pb2_grpc
from shared.errors import Unimplemented


class TaskGraphService(task_graph_service_pb2_grpc.TaskGraphServiceServicer):
    """Task graphs."""

    async def PlanTasks(self, request: Any, context: Any) -> NoReturn:
        _refuse("PlanTasks")

    async def ExecuteTasks(self, request: Any, context: Any) -> NoReturn:
        _refuse("ExecuteTasks")

    async def GetTaskGraph(self, request: Any, context: Any) -> NoReturn:
        _refuse("GetTaskGraph")


class EvaluationService(evaluation_service_pb2_grpc.EvaluationServiceServicer):
    """Evaluation."""

    async def RunEvaluation(self, request: Any, context: Any) -> NoReturn:
        _refuse("RunEvaluation")

    async def GetEvaluation(self, request: Any, context: Any) -> NoReturn:
        _refuse("GetEvaluation")


def _refuse(method: str) -> NoReturn:
    raise Unimplemented(f"this version of the mesh does not serve {method}", method=method)
