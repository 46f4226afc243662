"""AgentHistoryService and ReasoningService: convert in, one call of the domain, convert out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from google.protobuf import timestamp_pb2

from agentnet.orchestrator.v1 import agent_history_service_pb2 as history
from agentnet.orchestrator.v1 import agent_history_service_pb2_grpc, reasoning_service_pb2_grpc
from agentnet.orchestrator.v1 import reasoning_service_pb2 as reasoning
from services.orchestrator import convert
from services.orchestrator.agents.history import History
from services.orchestrator.agents.history_store import Wanted
from services.orchestrator.agents.reputation import Evidence
from shared import fields
from shared.errors import InvalidArgument
from shared.identity import current
from shared.paging import next_page_token, page

HISTORY: Final = "agentnet.orchestrator.v1.AgentHistoryService"
REASONING: Final = "agentnet.orchestrator.v1.ReasoningService"
_SOURCES: Final = ("user", "review", "evaluation")
_WEIGHT: Final = 2.0
_MOST: Final = 10.0


class AgentHistoryService(agent_history_service_pb2_grpc.AgentHistoryServiceServicer):
    """What agents did."""

    def __init__(self, found: History) -> None:
        self._history = found

    async def ListAgentExecutions(
        self, request: history.ListAgentExecutionsRequest, context: Any
    ) -> history.ListAgentExecutionsResponse:
        wanted = _wanted(request.name, session_id=request.session_id, failed_only=request.failed_only)
        scope = f"executions|{wanted}"
        asked = page(request.page_size, request.page_token, scope=scope)
        found = await self._history.executions(current().tenant_id, wanted, page=asked)
        shown = found[: asked.size]
        more = (shown[-1].end_time.ToDatetime(UTC).isoformat(), shown[-1].id) if len(found) > len(shown) else None
        token = next_page_token(more, scope=scope)
        return history.ListAgentExecutionsResponse(executions=shown, next_page_token=token)

    async def GetAgentMetrics(
        self, request: history.GetAgentMetricsRequest, context: Any
    ) -> history.GetAgentMetricsResponse:
        end = _time(request, "end_time") or self._history.clock.now()
        start = _time(request, "start_time") or end - timedelta(days=1)
        if start > end:
            raise InvalidArgument("start_time must not be after end_time", field="start_time")
        metrics = await self._history.metrics(current().tenant_id, _wanted(request.name), start=start, end=end)
        return history.GetAgentMetricsResponse(metrics=metrics)

    async def RateAgent(self, request: history.RateAgentRequest, context: Any) -> history.RateAgentResponse:
        name, _ = convert.reference(request.name, "name")
        source = request.source or _SOURCES[0]
        if source not in _SOURCES:
            raise InvalidArgument(f"source is one of {', '.join(_SOURCES)}", field="source")
        evidence = Evidence(
            source,
            fields.within(request.score, "score", low=0, high=1),
            fields.within(request.weight, "weight", low=0, high=_MOST) or _WEIGHT,
            self._history.clock.now(),
        )
        found = await self._history.rate(
            current(),
            name,
            evidence,
            subject=fields.text(request.subject, "subject", limit=64),
            note=fields.text(request.note, "note", limit=1000),
            request_id=fields.request_id(request.request_id),
        )
        return history.RateAgentResponse(reputation=found)

    async def GetAgentReputation(
        self, request: history.GetAgentReputationRequest, context: Any
    ) -> history.GetAgentReputationResponse:
        name, _ = convert.reference(request.name, "name")
        found = await self._history.reputation(current().tenant_id, name)
        return history.GetAgentReputationResponse(reputation=found)


class ReasoningService(reasoning_service_pb2_grpc.ReasoningServiceServicer):
    """What turns rested on."""

    def __init__(self, found: History) -> None:
        self._history = found

    async def GetReasoningTree(
        self, request: reasoning.GetReasoningTreeRequest, context: Any
    ) -> reasoning.GetReasoningTreeResponse:
        session_id = fields.identifier(request.session_id, "session_id")
        turn_id = fields.identifier(request.turn_id, "turn_id")
        tree = await self._history.tree(current().tenant_id, session_id, turn_id)
        return reasoning.GetReasoningTreeResponse(tree=tree)

    async def GetReasoningGraph(
        self, request: reasoning.GetReasoningGraphRequest, context: Any
    ) -> reasoning.GetReasoningGraphResponse:
        session_id = fields.identifier(request.session_id, "session_id")
        trees, edges = await self._history.graph(current().tenant_id, session_id)
        return reasoning.GetReasoningGraphResponse(trees=trees, edges=edges)


def _wanted(name: str, *, session_id: str = "", failed_only: bool = False) -> Wanted:
    bare, version = convert.reference(name, "name")
    chosen = fields.identifier(session_id, "session_id") if session_id else ""
    return Wanted(bare, f"{bare}@{version}" if version else "", chosen, failed_only)


def _time(request: Any, field: str) -> datetime | None:
    found: timestamp_pb2.Timestamp = getattr(request, field)
    return fields.instant(found, field) if request.HasField(field) else None
