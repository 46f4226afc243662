"""All that is around agents, put together from its stores, the same for the mesh and for its tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import grpc

from agentnet.orchestrator.v1 import (
    agent_history_service_pb2_grpc,
    dispatch_service_pb2_grpc,
    reasoning_service_pb2_grpc,
    relationship_service_pb2_grpc,
    template_service_pb2_grpc,
)
from services.orchestrator.agents.chains import Chains
from services.orchestrator.agents.delegations import Delegations
from services.orchestrator.agents.following import Follower, Herald, Keeps, forgets
from services.orchestrator.agents.history import History
from services.orchestrator.agents.history_store import HappeningStore, HistoryStore
from services.orchestrator.agents.minions import Minions
from services.orchestrator.agents.relationships import Relationships
from services.orchestrator.agents.stores import DelegationStore, RelationshipStore, TemplateStore
from services.orchestrator.agents.templates import Shelf, Templates, read_shelf
from services.orchestrator.service_dispatch import DISPATCH, DispatchService
from services.orchestrator.service_history import HISTORY, REASONING, AgentHistoryService, ReasoningService
from services.orchestrator.service_relationships import RELATIONSHIPS, RelationshipService
from services.orchestrator.service_templates import TEMPLATES, AgentTemplateService
from services.orchestrator.sessions import Sessions
from services.orchestrator.task_graphs import TaskGraphs

SERVICES: Final = (HISTORY, REASONING, RELATIONSHIPS, DISPATCH, TEMPLATES)


@dataclass(frozen=True, slots=True)
class AgentSide:
    """History, reasoning, relationships, dispatch and templates."""

    sessions: Sessions
    graphs: TaskGraphs
    history_store: HistoryStore
    happenings: HappeningStore
    herald: Herald
    relationship_store: RelationshipStore
    delegation_store: DelegationStore
    template_store: TemplateStore
    keeps: Keeps = forgets
    shelf: Shelf = field(default_factory=read_shelf)

    @property
    def history(self) -> History:
        mine = self.sessions
        return History(self.history_store, self.happenings, mine.store, mine.agents, mine.clock, mine.ids)

    @property
    def relationships(self) -> Relationships:
        return Relationships(self.relationship_store, self.sessions.agents, self.sessions.clock, self.sessions.ids)

    @property
    def chains(self) -> Chains:
        return Chains(self.relationships, self.sessions.agents, self.graphs, self.sessions, self.sessions.clock)

    @property
    def delegations(self) -> Delegations:
        mine = self.sessions
        return Delegations(
            self.delegation_store, mine.agents, self.relationships, self.history, mine, mine.clock, mine.ids
        )

    @property
    def templates(self) -> Templates:
        return Templates(self.template_store, self.sessions.agents, self.shelf)

    def follower(self, poll: timedelta) -> Follower:
        return Follower(self.happenings, self.history_store, self.herald, poll, (self.delegations.hear,), self.keeps)

    def add_to_server(self, server: grpc.aio.Server) -> None:
        history, delegations = self.history, self.delegations
        agent_history_service_pb2_grpc.add_AgentHistoryServiceServicer_to_server(AgentHistoryService(history), server)
        reasoning_service_pb2_grpc.add_ReasoningServiceServicer_to_server(ReasoningService(history), server)
        relationship_service_pb2_grpc.add_RelationshipServiceServicer_to_server(
            RelationshipService(self.relationships, self.chains), server
        )
        dispatch_service_pb2_grpc.add_DispatchServiceServicer_to_server(
            DispatchService(delegations, Minions(delegations)), server
        )
        template_service_pb2_grpc.add_AgentTemplateServiceServicer_to_server(
            AgentTemplateService(self.templates), server
        )
