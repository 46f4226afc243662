"""The honest fakes of relationships, delegations and templates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from agentnet.orchestrator.v1 import delegation_pb2
from services.orchestrator.agents.stores import Delegation, DelegationFilter, Fits, Relationship, Template
from shared.paging import Page

RUNNING = delegation_pb2.DELEGATION_STATE_RUNNING
REVOKED = delegation_pb2.DELEGATION_STATE_REVOKED


class MemoryRelationshipStore:
    """Edges by tenant."""

    def __init__(self) -> None:
        self._edges: dict[tuple[str, str], bytes] = {}

    async def put(
        self, tenant: str, relationship: Relationship, *, fits: Callable[[Sequence[Relationship]], None]
    ) -> Relationship:
        same_kind = [edge for edge in self._of(tenant) if edge.kind == relationship.kind]
        fits(same_kind)
        for edge in same_kind:
            if (edge.source, edge.target) == (relationship.source, relationship.target):
                relationship.id = edge.id
                relationship.create_time.CopyFrom(edge.create_time)
        self._edges[tenant, relationship.id] = relationship.SerializeToString()
        return relationship

    async def every(self, tenant: str, *, agent: str, kind: str) -> Sequence[Relationship]:
        found = [
            edge for edge in self._of(tenant) if agent in ("", edge.source, edge.target) and kind in ("", edge.kind)
        ]
        return sorted(found, key=lambda edge: (-edge.priority, edge.source, edge.target, edge.kind))

    async def delete(self, tenant: str, relationship_id: str) -> bool:
        return self._edges.pop((tenant, relationship_id), None) is not None

    def _of(self, tenant: str) -> list[Relationship]:
        return [Relationship.FromString(data) for (owner, _), data in self._edges.items() if owner == tenant]


class MemoryDelegationStore:
    """Delegations by tenant."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], bytes] = {}
        self._requested: dict[tuple[str, str], str] = {}

    async def open(self, tenant: str, delegation: Delegation, *, request_id: str | None, fits: Fits) -> Delegation:
        if request_id and (earlier := self._requested.get((tenant, request_id))):
            return Delegation.FromString(self._kept[tenant, earlier])
        parent = await self.find(tenant, delegation.parent_id)
        below = [one for one in self._of(tenant) if parent and one.parent_id == parent.id]
        fits(parent, sum(taken(one) for one in below))
        self._kept[tenant, delegation.id] = delegation.SerializeToString()
        if request_id:
            self._requested[tenant, request_id] = delegation.id
        return delegation

    async def of_request(self, tenant: str, request_id: str) -> Delegation | None:
        earlier = self._requested.get((tenant, request_id))
        return await self.find(tenant, earlier) if earlier else None

    async def find(self, tenant: str, delegation_id: str) -> Delegation | None:
        data = self._kept.get((tenant, delegation_id))
        return Delegation.FromString(data) if data is not None else None

    async def every(self, tenant: str, chosen: DelegationFilter, *, page: Page) -> Sequence[Delegation]:
        found = sorted((one for one in self._of(tenant) if _fits(one, chosen)), key=_place, reverse=True)
        at, last = page.place
        if at is not None:
            found = [one for one in found if _place(one) < (at, last)]
        return found[: page.size + 1]

    async def running(self, tenant: str, *, now: datetime) -> Mapping[str, int]:
        return Counter(
            one.target.partition("@")[0]
            for one in self._of(tenant)
            if one.state == RUNNING and one.capability.expire_time.ToDatetime(UTC) > now
        )

    async def end(self, tenant: str, delegation: Delegation) -> bool:
        known = await self.find(tenant, delegation.id)
        if known is None or known.state != RUNNING:
            return False
        self._kept[tenant, delegation.id] = delegation.SerializeToString()
        return True

    async def spent(self, tenant: str, delegation: Delegation) -> None:
        self._kept[tenant, delegation.id] = delegation.SerializeToString()

    async def revoke(self, tenant: str, delegation_id: str, *, at: datetime) -> Sequence[Delegation]:
        first = await self.find(tenant, delegation_id)
        tree, revoked = [first] if first else [], list[Delegation]()
        for one in tree:
            tree += sorted((below for below in self._of(tenant) if below.parent_id == one.id), key=_place)
            if one.state == RUNNING:
                one.state = REVOKED
                one.end_time.FromDatetime(at)
                self._kept[tenant, one.id] = one.SerializeToString()
                revoked.append(one)
        return revoked

    def _of(self, tenant: str) -> list[Delegation]:
        return [Delegation.FromString(data) for (owner, _), data in self._kept.items() if owner == tenant]


class MemoryTemplateStore:
    """Templates by tenant."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str, str], bytes] = {}
        self._uses: Counter[tuple[str, str, str]] = Counter()

    async def add(self, tenant: str, template: Template) -> bool:
        place = (tenant, template.name, template.version)
        if place in self._kept:
            return False
        self._kept[place] = template.SerializeToString()
        return True

    async def every(self, tenant: str) -> Sequence[Template]:
        return [Template.FromString(data) for place, data in sorted(self._kept.items()) if place[0] == tenant]

    async def used(self, tenant: str, name: str, version: str) -> None:
        self._uses[tenant, name, version] += 1

    async def uses(self, tenant: str) -> Mapping[tuple[str, str], int]:
        return {(name, version): count for (owner, name, version), count in self._uses.items() if owner == tenant}


def taken(below: Delegation) -> int:
    """What a delegation has taken of its parent's budget: what it may spend while it runs, then what it did."""
    return below.capability.budget_micros_usd if below.state == RUNNING else below.cost_micros_usd


def _fits(one: Delegation, chosen: DelegationFilter) -> bool:
    return (
        chosen.parent_id in ("", one.parent_id)
        and chosen.agent in ("", one.target.partition("@")[0])
        and chosen.conversation_id in ("", one.conversation_id)
        and chosen.state in (0, one.state)
    )


def _place(one: Delegation) -> tuple[datetime, str]:
    return one.create_time.ToDatetime(UTC), one.id
