"""All that is around agents, put together from its stores, the same for the mesh and for its tests."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import grpc

from agentnet.orchestrator.v1 import agent_history_service_pb2_grpc, reasoning_service_pb2_grpc
from services.orchestrator.agents.following import Follower, Herald
from services.orchestrator.agents.history import History
from services.orchestrator.agents.history_store import HappeningStore, HistoryStore
from services.orchestrator.service_history import HISTORY, REASONING, AgentHistoryService, ReasoningService
from services.orchestrator.sessions import Sessions
from services.orchestrator.task_graphs import TaskGraphs

SERVICES: Final = (HISTORY, REASONING)


@dataclass(frozen=True, slots=True)
class AgentSide:
    """History, reasoning, relationships, dispatch and templates."""

    sessions: Sessions
    graphs: TaskGraphs
    history_store: HistoryStore
    happenings: HappeningStore
    herald: Herald

    @property
    def history(self) -> History:
        mine = self.sessions
        return History(self.history_store, self.happenings, mine.store, mine.agents, mine.clock, mine.ids)

    def follower(self, poll: timedelta) -> Follower:
        return Follower(self.happenings, self.history_store, self.herald, poll)

    def add_to_server(self, server: grpc.aio.Server) -> None:
        history = self.history
        agent_history_service_pb2_grpc.add_AgentHistoryServiceServicer_to_server(AgentHistoryService(history), server)
        reasoning_service_pb2_grpc.add_ReasoningServiceServicer_to_server(ReasoningService(history), server)
