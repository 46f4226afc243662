"""Minions: the agents that take work, with what they are doing and how they do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from agentnet.orchestrator.v1 import agent_pb2, dispatch_service_pb2
from services.orchestrator.agents.delegations import Delegations
from services.orchestrator.agents.history_store import Wanted
from services.orchestrator.agents.routing import room

_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Minions:
    """The minions of all tenants, one tenant a call."""

    delegations: Delegations

    async def able(self, tenant: str, *, capability: str) -> Sequence[agent_pb2.Agent]:
        """Who has the capability, or all, by name."""
        active = await self.delegations.agents.active(tenant)
        able = (agent for agent in active if not capability or capability in agent.capabilities)
        return sorted(able, key=lambda agent: agent.name)

    async def described(self, tenant: str, agents: Sequence[agent_pb2.Agent]) -> Sequence[dispatch_service_pb2.Minion]:
        """What these are doing."""
        running = await self.delegations.store.running(tenant, now=self.delegations.clock.now())
        known = await self.delegations.history.reputations(tenant, [agent.name for agent in agents])
        return [
            await self._minion(tenant, agent, running.get(agent.name, 0), known[agent.name].score) for agent in agents
        ]

    async def _minion(
        self, tenant: str, agent: agent_pb2.Agent, running: int, reputation: float
    ) -> dispatch_service_pb2.Minion:
        now = self.delegations.clock.now()
        # Until a second from now, so that what ended just now counts.
        end = now + timedelta(seconds=1)
        metrics = await self.delegations.history.metrics(tenant, Wanted(agent.name), start=now - _DAY, end=end)
        state = "idle" if not running else "full" if running >= room(agent) else "working"
        return dispatch_service_pb2.Minion(
            agent=f"{agent.name}@{agent.version}",
            capabilities=agent.capabilities,
            state=state,
            running=running,
            max_concurrent_tasks=room(agent),
            reputation=reputation,
            metrics=metrics,
        )
