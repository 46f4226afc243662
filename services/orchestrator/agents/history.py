"""What agents did, as callers ask for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from agentnet.orchestrator.v1 import event_pb2, execution_pb2, reasoning_service_pb2
from services.orchestrator.agents.history_store import HappeningStore, HistoryStore, Rating, Wanted
from services.orchestrator.agents.registry import Agents
from services.orchestrator.agents.reputation import Evidence, reputation
from services.orchestrator.errors import SessionNotFound
from services.orchestrator.reasoning import tree as trees
from services.orchestrator.store import SessionStore
from shared.clock import Clock
from shared.identity import Principal
from shared.ids import Ids
from shared.paging import Page

_GRAPH_AT_MOST = 500


@dataclass(frozen=True, slots=True)
class History:
    """The history of all tenants, one tenant a call."""

    store: HistoryStore
    happenings: HappeningStore
    sessions: SessionStore
    agents: Agents
    clock: Clock
    ids: Ids

    async def executions(self, tenant: str, wanted: Wanted, *, page: Page) -> Sequence[execution_pb2.AgentExecution]:
        """Newest first."""
        return await self.store.executions(tenant, wanted, page=page)

    async def metrics(
        self, tenant: str, wanted: Wanted, *, start: datetime, end: datetime
    ) -> execution_pb2.AgentMetrics:
        """Sums over a time."""
        found = await self.store.metrics(tenant, wanted, start=start, end=end)
        found.agent = wanted.reference or wanted.name
        found.start_time.FromDatetime(start)
        found.end_time.FromDatetime(end)
        return found

    async def rate(
        self, rater: Principal, agent: str, evidence: Evidence, *, subject: str, note: str, request_id: str | None
    ) -> execution_pb2.AgentReputation:
        """Counts a judgement, once a request. Raises AgentNotFound."""
        found = await self.agents.find(rater.tenant_id, agent)
        # A caller's own words are no key of ours, and two callers may have the same.
        key = f"{rater.subject}/{request_id}" if request_id else self.ids.new("rat")
        rating = Rating(key, found.name, evidence, subject, note, rater.subject)
        await self.store.rate(rater.tenant_id, rating)
        return await self.reputation(rater.tenant_id, agent)

    async def reputation(self, tenant: str, agent: str) -> execution_pb2.AgentReputation:
        """Raises AgentNotFound."""
        found = await self.agents.find(tenant, agent)
        return (await self.reputations(tenant, [found.name]))[found.name]

    async def reputations(self, tenant: str, agents: Sequence[str]) -> Mapping[str, execution_pb2.AgentReputation]:
        """Of these agents, by name."""
        known, now = await self.store.evidence(tenant, agents), self.clock.now()
        return {agent: reputation(agent, known[agent], now) for agent in agents}

    async def graph(
        self, tenant: str, session_id: str
    ) -> tuple[Sequence[reasoning_service_pb2.ReasoningTree], Sequence[reasoning_service_pb2.ReasoningEdge]]:
        """The trees of a session's finished turns and how they rest on one another. Raises SessionNotFound."""
        session = await self.sessions.find(tenant, session_id)
        if session is None:
            raise SessionNotFound(f"no session {session_id}", session_id=session_id)
        entries = await self.happenings.context(tenant, session_id, session.last_sequence)
        events = [event_pb2.SessionEvent.FromString(entry.payload) for entry in entries]
        known = {tree.turn_id: tree for tree in await self.store.trees(tenant, session_id, limit=_GRAPH_AT_MOST)}
        for place, event in enumerate(events, start=1):
            turn = event.turn_finished.turn
            if event.HasField("turn_finished") and turn.id not in known:
                # Following the log is a moment behind.
                known[turn.id] = trees.generate_reasoning_tree(turn, events[:place])
        found = sorted(known.values(), key=lambda tree: tree.time.ToNanoseconds())
        return found, trees.edges(found, events)

    async def tree(self, tenant: str, session_id: str, turn_id: str) -> reasoning_service_pb2.ReasoningTree:
        """Raises SessionNotFound, also for a turn that has not finished there."""
        found, _ = await self.graph(tenant, session_id)
        for tree in found:
            if tree.turn_id == turn_id:
                return tree
        raise SessionNotFound(f"no finished turn {turn_id} in {session_id}", session_id=session_id, turn_id=turn_id)
