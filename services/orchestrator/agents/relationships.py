"""Relationships between agents: typed edges. Chains run along `chains_to`, never in a circle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from services.orchestrator.agents.registry import Agents
from services.orchestrator.agents.stores import Relationship, RelationshipStore
from services.orchestrator.errors import RelationshipInvalid, RelationshipNotFound
from shared.clock import Clock
from shared.ids import Ids

CHAINS: Final = "chains_to"
FALLS_BACK: Final = "falls_back_to"
DELEGATES: Final = ("delegates_to", "hands_off_to", "supervises")
KINDS: Final = ("delegates_to", CHAINS, "reviews", "hands_off_to", "supervises", FALLS_BACK)


@dataclass(frozen=True, slots=True)
class Relationships:
    """The relationships of all tenants, one tenant a call."""

    store: RelationshipStore
    agents: Agents
    clock: Clock
    ids: Ids

    async def create(self, tenant: str, relationship: Relationship) -> Relationship:
        """Raises AgentNotFound and RelationshipInvalid."""
        for name in (relationship.source, relationship.target):
            await self.agents.find(tenant, name)
        if relationship.source == relationship.target:
            path = f"{relationship.source} > {relationship.target}"
            raise RelationshipInvalid("an agent is not joined with itself", path=path)
        relationship.id = self.ids.new("rel")
        relationship.create_time.FromDatetime(self.clock.now())

        def fits(known: Sequence[Relationship]) -> None:
            if relationship.kind == CHAINS and (circle := _way(known, relationship.target, relationship.source)):
                path = " > ".join((relationship.source, *circle))
                raise RelationshipInvalid(f"chains would run in a circle: {path}", path=path)

        return await self.store.put(tenant, relationship, fits=fits)

    async def every(self, tenant: str, *, agent: str, kind: str) -> Sequence[Relationship]:
        """By priority and name."""
        return await self.store.every(tenant, agent=agent, kind=kind)

    async def delete(self, tenant: str, relationship_id: str) -> None:
        """Raises RelationshipNotFound."""
        if not await self.store.delete(tenant, relationship_id):
            raise RelationshipNotFound(f"no relationship {relationship_id}", relationship_id=relationship_id)

    async def helpers(self, tenant: str, reference: str) -> frozenset[str]:
        """Agents that an agent may give work to, by name: its sub-agents and those its relationships name."""
        name, _, version = reference.partition("@")
        agent = await self.agents.find(tenant, name, version)
        known = await self.store.every(tenant, agent=name, kind="")
        return frozenset(agent.subagents) | {
            edge.target for edge in known if edge.source == name and edge.kind in DELEGATES
        }


def _way(edges: Sequence[Relationship], start: str, end: str) -> tuple[str, ...]:
    """A way along edges from one agent to another; empty when there is none."""
    ways: list[tuple[str, ...]] = [(start,)]
    seen = {start}
    for way in ways:
        if way[-1] == end:
            return way
        further = {edge.target for edge in edges if edge.source == way[-1]} - seen
        seen |= further
        ways += [(*way, name) for name in sorted(further)]
    return ()
