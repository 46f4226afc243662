"""What the ledger asks of storage. Each method is one transaction of one tenant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.cost.prices import Usage
from shared.paging import Page


@dataclass(frozen=True, slots=True)
class Lease:
    """Money set aside for one generation."""

    generation_id: str
    provider: str
    model: str
    input_tokens: int
    micros_usd: int
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class CostEvent:
    """One entry of the ledger."""

    id: str
    generation_id: str
    session_id: str
    agent: str
    provider: str
    model: str
    usage: Usage
    micros_usd: int
    price_version: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Budget:
    """What the tenant may spend and has spent, in micro-USD."""

    id: str
    limit: int
    settled: int
    leased: int
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries of the ledger. None and empty mean all."""

    start: datetime | None = None
    end: datetime | None = None
    session_id: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class Summary:
    """One sum; `group` has the values of the columns grouped by, in their order."""

    group: tuple[str, ...]
    micros_usd: int
    input_tokens: int
    output_tokens: int
    generations: int


class CostStore(Protocol):
    """Where money is written down."""

    async def reserve(self, tenant: str, lease: Lease, *, now: datetime) -> bool:
        """Sets the lease's money aside, in place of an earlier lease of the generation. False when settled and leased
        money would exceed the budget; nothing changes then.
        """

    async def lease(self, tenant: str, generation_id: str) -> Lease | None:
        """The lease held for a generation."""

    async def settle(self, tenant: str, event: CostEvent) -> CostEvent:
        """Appends the entry and gives the lease back; returns the generation's first entry if there is one."""

    async def summarize(self, tenant: str, chosen: Filter, *, group_by: Sequence[str], page: Page) -> Sequence[Summary]:
        """Sums, dearest first, at most `page.size` + 1. The cursor is how many to skip."""

    async def events(self, tenant: str, chosen: Filter, *, newest_first: bool, page: Page) -> Sequence[CostEvent]:
        """Entries by time, at most `page.size` + 1. The cursor is (time, id) of the last one seen."""

    async def budget(self, tenant: str, *, now: datetime) -> Budget | None:
        """The budget with what is settled and leased now."""

    async def set_budget(self, tenant: str, budget_id: str, limit: int, *, now: datetime) -> Budget:
        """Sets the limit; the id is used when the budget is new."""
