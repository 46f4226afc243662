"""What the service asks of storage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from shared.monitors.rules import Rule, Severity
from shared.paging import Page


@dataclass(frozen=True, slots=True)
class StoredBundle:
    """One immutable version."""

    name: str
    version: str
    digest: str
    document: str
    rules: tuple[Rule, ...]
    created_at: datetime
    labels: tuple[str, ...] = ()
    built_in: bool = False


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


@dataclass(frozen=True, slots=True)
class ViolationFilter:
    """Which violations. None and empty mean all."""

    session_id: str = ""
    severity: Severity | None = None
    monitor_name: str = ""
    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True, slots=True)
class Enforced:
    """What is labelled "production", for every tenant that has something so labelled."""

    revision: int
    tenants: Mapping[str, Sequence[StoredBundle]]


class PolicyStore(Protocol):
    """Where bundles and violations are kept."""

    async def add(self, tenant: str, bundle: StoredBundle) -> bool:
        """Stores a version with its labels, which move to it. False when the version exists."""

    async def bundles(self, tenant: str, *, name: str = "") -> Sequence[StoredBundle]:
        """All versions, newest first; of one bundle when named."""

    async def label(self, tenant: str, name: str, version: str, *, label: str, remove: bool) -> bool:
        """Points the label of this bundle at the version, or takes it away. False when there is no such version."""

    async def revision(self) -> int:
        """Rises with every change of what is enforced anywhere."""

    async def enforced(self) -> Enforced:
        """What is enforced everywhere."""

    async def record(self, tenant: str, violations: Sequence[Violation]) -> int:
        """Stores those whose id is new; returns how many."""

    async def violations(
        self, tenant: str, chosen: ViolationFilter, *, newest_first: bool, page: Page
    ) -> Sequence[Violation]:
        """Violations by time, at most `page.size` + 1. The cursor is (time, id) of the last one seen."""
