"""What the service asks of storage."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol

from services.policy.document import Document
from shared.monitors.rules import Bundle, Rule, Severity
from shared.paging import Page
from shared.tool_permissions import ToolPermission

EVERY_TENANT: Final = "*"


@dataclass(frozen=True, slots=True)
class StoredBundle:
    """One immutable version."""

    name: str
    version: str
    digest: str
    document: str
    content: Document
    created_at: datetime
    labels: tuple[str, ...] = ()
    built_in: bool = False
    signature: bytes = b""
    signing_key: str = ""

    @property
    def label(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def rules(self) -> tuple[Rule, ...]:
        return self.content.rules

    @property
    def judged_by(self) -> Bundle:
        """What the engine judges with."""
        content = self.content
        return Bundle(
            self.name,
            self.version,
            content.rules,
            content.mode,
            content.profiles,
            content.agents,
            content.embedding_sets,
        )


@dataclass(frozen=True, slots=True)
class Attachment:
    """A version, or one profile of it, that an agent has beside the tenant's; the agent "*" is every agent."""

    agent: str
    name: str
    version: str
    profile: str = ""


@dataclass(frozen=True, slots=True)
class Violation:
    """One match of one rule; never the matched text."""

    id: str
    session_id: str
    turn_id: str
    agent: str
    monitor_name: str
    severity: Severity
    violation_type: str
    rationale: str
    meta: Mapping[str, object]
    created_at: datetime
    shadow: bool = False


@dataclass(frozen=True, slots=True)
class ViolationFilter:
    """Which violations. None and empty mean all."""

    session_id: str = ""
    severity: Severity | None = None
    monitor_name: str = ""
    start: datetime | None = None
    end: datetime | None = None
    shadow: bool = False


@dataclass(frozen=True, slots=True)
class Enforced:
    """What is labelled "production" and what is attached, for every tenant that has any."""

    revision: int
    tenants: Mapping[str, Sequence[StoredBundle]]
    attached: Mapping[str, Sequence[tuple[Attachment, StoredBundle]]] = field(default_factory=dict)
    trying: frozenset[str] = frozenset()
    """Tenants with a bundle labelled "shadow"; only known of all at once."""
    permissions: Mapping[str, Sequence[ToolPermission]] = field(default_factory=dict)
    """Who may call the tools of tenants; only known of all at once."""


class PolicyStore(Protocol):
    """Where bundles and violations are kept."""

    async def add(self, tenant: str, bundle: StoredBundle) -> bool:
        """Stores a version with its labels, which move to it. False when the version exists."""

    async def bundles(self, tenant: str, *, name: str = "") -> Sequence[StoredBundle]:
        """All versions, newest first; of one bundle when named."""

    async def label(self, tenant: str, name: str, version: str, *, label: str, remove: bool) -> bool:
        """Points the label of this bundle at the version, or takes it away. False when there is no such version."""

    async def attach(self, tenant: str, attachment: Attachment) -> bool:
        """Gives an agent a version, in the place of any other of the bundle. False when there is no such version."""

    async def detach(self, tenant: str, agent: str, name: str) -> None:
        """Takes the bundle away from the agent."""

    async def attachments(self, tenant: str) -> Sequence[Attachment]:
        """All of the tenant's, by agent and name."""

    def changes(self, *, at_least_every: timedelta) -> AsyncIterator[None]:
        """Now, after every change of what is enforced, by any replica, and now and then. Raises Unavailable."""

    async def enforced(self, tenant: str = EVERY_TENANT) -> Enforced:
        """What is enforced everywhere, or for one tenant."""

    async def labelled(self, tenant: str, label: str) -> Sequence[StoredBundle]:
        """The tenant's bundles with a label, by name."""

    async def set_permission(self, tenant: str, permission: ToolPermission) -> None:
        """Stores one in the place of that tool."""

    async def permissions(self, tenant: str) -> Sequence[ToolPermission]:
        """All, by tool."""

    async def record(self, tenant: str, violations: Sequence[Violation]) -> int:
        """Stores those whose id is new; returns how many."""

    async def violations(
        self, tenant: str, chosen: ViolationFilter, *, newest_first: bool, page: Page
    ) -> Sequence[Violation]:
        """Violations by time, at most `page.size` + 1. The cursor is (time, id) of the last one seen."""
