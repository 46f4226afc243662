"""Services the contract has and this mesh does not serve yet: each call says so, and what to use instead."""

from __future__ import annotations

from typing import Any, Final, NoReturn

from agentnet.orchestrator.v1 import evaluation_service_pb2_grpc, task_graph_service_pb2_grpc
from shared.errors import Unimplemented

_SESSIONS: Final = "start a session with the agents you would plan for (SessionService.StartSession)"
_LOG: Final = "start the scenario as a session and score its log (SessionService.WatchSession)"


class TaskGraphService(task_graph_service_pb2_grpc.TaskGraphServiceServicer):
    """Task graphs."""

    async def PlanTasks(self, request: Any, context: Any) -> NoReturn:
        _refuse("PlanTasks", _SESSIONS)

    async def ExecuteTasks(self, request: Any, context: Any) -> NoReturn:
        _refuse("ExecuteTasks", _SESSIONS)

    async def GetTaskGraph(self, request: Any, context: Any) -> NoReturn:
        _refuse("GetTaskGraph", _SESSIONS)

    async def ListTaskGraphs(self, request: Any, context: Any) -> NoReturn:
        _refuse("ListTaskGraphs", _SESSIONS)

    async def CancelTasks(self, request: Any, context: Any) -> NoReturn:
        _refuse("CancelTasks", _SESSIONS)

    async def DrawTaskGraph(self, request: Any, context: Any) -> NoReturn:
        _refuse("DrawTaskGraph", _SESSIONS)


class EvaluationService(evaluation_service_pb2_grpc.EvaluationServiceServicer):
    """Evaluation."""

    async def RunEvaluation(self, request: Any, context: Any) -> NoReturn:
        _refuse("RunEvaluation", _LOG)

    async def GetEvaluation(self, request: Any, context: Any) -> NoReturn:
        _refuse("GetEvaluation", _LOG)


def _refuse(method: str, instead: str) -> NoReturn:
    raise Unimplemented(f"this version of the mesh does not serve {method}; {instead}", method=method)
