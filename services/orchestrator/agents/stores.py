"""What relationships, delegations and templates ask of storage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from agentnet.orchestrator.v1 import delegation_pb2, relationship_service_pb2, template_service_pb2
from shared.paging import Page

Delegation = delegation_pb2.Delegation
Relationship = relationship_service_pb2.AgentRelationship
Template = template_service_pb2.AgentTemplate
# Judges a new delegation by its parent and by what others have taken of the parent's budget; refuses by raising.
Fits = Callable[[Delegation | None, int], None]


@dataclass(frozen=True, slots=True)
class DelegationFilter:
    """Which delegations. What is empty is not asked for."""

    parent_id: str = ""
    agent: str = ""
    conversation_id: str = ""
    state: int = 0


class RelationshipStore(Protocol):
    """Edges between agents."""

    async def put(
        self, tenant: str, relationship: Relationship, *, fits: Callable[[Sequence[Relationship]], None]
    ) -> Relationship:
        """Stores an edge, or replaces what is said of the one between the same two of the same kind, whose id and time
        stay. `fits` sees all edges of that kind and refuses by raising; nobody changes them meanwhile.
        """

    async def every(self, tenant: str, *, agent: str, kind: str) -> Sequence[Relationship]:
        """By priority, the highest first, then by names; at most 1,000."""

    async def delete(self, tenant: str, relationship_id: str) -> bool:
        """False when there was none."""


class DelegationStore(Protocol):
    """Delegations and their tree."""

    async def open(self, tenant: str, delegation: Delegation, *, request_id: str | None, fits: Fits) -> Delegation:
        """Stores a delegation that runs, or returns the earlier one of this request_id. `fits` sees its parent, which
        nobody changes meanwhile, and refuses by raising.
        """

    async def of_request(self, tenant: str, request_id: str) -> Delegation | None:
        """The one an earlier request opened."""

    async def find(self, tenant: str, delegation_id: str) -> Delegation | None:
        """One."""

    async def every(self, tenant: str, chosen: DelegationFilter, *, page: Page) -> Sequence[Delegation]:
        """Newest first, at most `page.size` + 1. The cursor is (time, id) of the last one seen."""

    async def running(self, tenant: str, *, now: datetime) -> Mapping[str, int]:
        """How many each agent works on, by name, expired ones left out."""

    async def end(self, tenant: str, delegation: Delegation) -> bool:
        """Writes how one that runs has ended. False when it does not run any more."""

    async def spent(self, tenant: str, delegation: Delegation) -> None:
        """Writes what one has cost that has ended."""

    async def revoke(self, tenant: str, delegation_id: str, *, at: datetime) -> Sequence[Delegation]:
        """Revokes one and all below it that run: those, its own first. Empty when none ran."""


class TemplateStore(Protocol):
    """Templates tenants publish, and how often any was used."""

    async def add(self, tenant: str, template: Template) -> bool:
        """False when this version exists."""

    async def every(self, tenant: str) -> Sequence[Template]:
        """All of the tenant, with their uses."""

    async def used(self, tenant: str, name: str, version: str) -> None:
        """Counts one use, of a template of the mesh too."""

    async def uses(self, tenant: str) -> Mapping[tuple[str, str], int]:
        """How often each was used, by name and version."""
