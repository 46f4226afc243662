"""What the ledger asks of storage. Each method is one transaction of one tenant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from services.cost.budget import NOBODY, Budget, Level, Limits, Passed, Path, Window
from services.cost.prices import Usage
from shared.identity import Purse
from shared.paging import Page


@dataclass(frozen=True, slots=True)
class Ask:
    """Money wanted for one generation: a part that is certain, in millionths of a micro-USD, and a price for a million
    tokens it may produce.
    """

    generation_id: str
    scopes: tuple[str, ...]
    certain_millionths: int
    output_price: int
    output_tokens: int
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Extension:
    """More money wanted for a generation whose lease is held: so much that it covers this many output tokens in all."""

    generation_id: str
    output_tokens: int
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Lease:
    """Money set aside for one generation."""

    generation_id: str
    micros_usd: int
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Taken:
    """A lease, or the limit that is in its way; and soft limits passed."""

    lease: Lease | None
    refused_by: Passed | None = None
    passed: tuple[Passed, ...] = ()


class Outcome(StrEnum):
    """How an attempt at a generation ended."""

    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED_OVER = "failed_over"
    CUT = "cut"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Call:
    """One attempt at a generation: who pays whom for what, on whose behalf."""

    generation_id: str
    provider: str
    model: str
    path: Path = NOBODY
    turn_id: str = ""
    attempt: int = 0
    outcome: Outcome = Outcome.COMPLETED
    tier: str = ""
    region: str = ""


@dataclass(frozen=True, slots=True)
class CostEvent:
    """One entry of the ledger."""

    id: str
    call: Call
    usage: Usage
    micros_usd: int
    price_version: str
    price_estimated: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Settled:
    """The entry of an attempt, and whether it was written just now."""

    event: CostEvent
    fresh: bool


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries of the ledger. None and empty mean all."""

    start: datetime | None = None
    end: datetime | None = None
    session_id: str = ""
    model: str = ""
    provider: str = ""
    agent: str = ""
    team: str = ""
    user: str = ""


@dataclass(frozen=True, slots=True)
class Summary:
    """One sum; `group` has the values of the columns grouped by, in their order."""

    group: tuple[str, ...]
    micros_usd: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    generations: int = 0
    estimated: int = 0


@dataclass(frozen=True, slots=True)
class StoredBook:
    """A price book as it was imported."""

    version: str
    document: str
    created_at: datetime


class CostStore(Protocol):
    """Where money is written down."""

    async def take(self, tenant: str, ask: Ask, *, now: datetime) -> Taken:
        """Sets money aside in every budget of its scopes, or in none. A lease that is held is returned as it is."""

    async def extend(self, tenant: str, extension: Extension, *, now: datetime) -> Taken | None:
        """Makes a lease cover more; None when the generation has none. A lease that had ended is taken anew."""

    async def settle(self, tenant: str, event: CostEvent) -> Settled:
        """Appends the entry, counts it in budgets and roll-ups and gives the lease back; returns the attempt's first
        entry if there is one.
        """

    async def reclaim(self, tenant: str, *, now: datetime) -> int:
        """Gives back the money of leases that have ended, and forgets those a day old and purses 35 days old; how much
        was given back.
        """

    async def summarize(self, tenant: str, chosen: Filter, *, group_by: Sequence[str], page: Page) -> Sequence[Summary]:
        """Sums, dearest first, at most `page.size` + 1. The cursor is how many to skip."""

    async def events(self, tenant: str, chosen: Filter, *, newest_first: bool, page: Page) -> Sequence[CostEvent]:
        """Entries by time, at most `page.size` + 1. The cursor is (time, id) of the last one seen."""

    async def budget(self, tenant: str, level: Level, name: str, window: Window, *, now: datetime) -> Budget | None:
        """The budget with what is settled and leased now."""

    async def budgets(self, tenant: str, *, page: Page, now: datetime) -> Sequence[Budget]:
        """All, from the whole to the part, at most `page.size` + 1. The cursor is how many to skip."""

    async def open_purses(self, tenant: str, purses: Sequence[Purse], *, now: datetime) -> None:
        """Makes the budgets of these purses, those there are not yet; they are forgotten 35 days later."""

    async def set_budget(self, tenant: str, budget_id: str, limits: Limits, *, now: datetime) -> Budget:
        """Sets the limits; the id is used when the budget is new."""

    async def delete_budget(self, tenant: str, budget_id: str) -> bool:
        """Whether there was one that can be deleted: a credential's cannot."""

    async def approve(self, tenant: str, budget_id: str, name: str, *, now: datetime) -> Window | None:
        """Lets generations start beyond the soft limit until the window ends; None when there is no such budget."""

    async def adopt_prices(self, tenant: str, book: StoredBook) -> None:
        """Makes the book the tenant's own."""

    async def price_book(self, tenant: str, version: str) -> StoredBook | None:
        """The book of this version, the mesh's among them; the tenant's own for an empty version."""
