"""What facts ask of storage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from services.memory.bounds import Kept
from services.memory.store import Receipt
from shared.paging import Page


class Closed(NamedTuple):
    """How a fact was closed, or that it was not, until the mesh learned better."""

    until: datetime
    valid_to: datetime | None
    ended_at: datetime | None
    superseded_by: str


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact. `valid_from` and `valid_to` are when it was so; `recorded_at` and `ended_at` when the mesh knew it.
    `earlier` tells how it was closed before; only stores read it.

    `place` is the order of recording, given by the store; 0 before.
    """

    id: str
    subject: str
    relation: str
    object: str
    several: bool
    valid_from: datetime
    recorded_at: datetime
    valid_to: datetime | None = None
    ended_at: datetime | None = None
    superseded_by: str = ""
    confidence: float = 1.0
    session_id: str = ""
    turn_id: str = ""
    agent: str = ""
    policy_version: str = ""
    place: int = 0
    earlier: tuple[Closed, ...] = ()


@dataclass(frozen=True, slots=True)
class FactFilter:
    """Which facts. Empty and None mean all; `valid_at` those that were so then, as the mesh knew it at `as_of`."""

    subject: str = ""
    relation: str = ""
    object: str = ""
    valid_at: datetime | None = None
    as_of: datetime | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """A fact as it is kept, and those it ended."""

    fact: Fact
    superseded: Sequence[Fact]


class FactStore(Protocol):
    """Where facts are kept, tenant by tenant. Rows are closed and never otherwise changed."""

    async def record(self, tenant: str, facts: Sequence[Fact]) -> Sequence[Recorded]:
        """Records all or none. Where the same is so already, that fact is given; an exclusive one ends the others that
        hold at its beginning.
        """

    async def find(self, tenant: str, fact_id: str) -> Fact | None:
        """One fact."""

    async def every(self, tenant: str, chosen: FactFilter, page: Page) -> Sequence[Fact]:
        """Those recorded last first, as they were known at `as_of`, at most `page.size` + 1. The cursor is the place of
        the last one seen.
        """

    async def touching(self, tenant: str, entities: Sequence[str], *, valid_at: datetime, limit: int) -> Sequence[Fact]:
        """What is so of or about any of the entities."""

    async def end(self, tenant: str, fact_id: str, *, valid_to: datetime, now: datetime) -> Fact | None:
        """Closes a fact that still holds; the fact as it is then, or None when there is none."""

    async def forget(self, tenant: str, facts: Sequence[Fact], receipts: Sequence[Receipt]) -> int:
        """Deletes for good, history included, and keeps the receipts. Returns how many were there."""

    async def kept(self, tenant: str, *, ended_by: datetime | None) -> Kept:
        """How many facts there are, or only those that no longer hold by then."""

    async def outlived(self, tenant: str, *, before: datetime, ended_by: datetime | None, limit: int) -> Sequence[Fact]:
        """Facts recorded before; where only ended ones are asked for, those of which that was so and known before."""

    async def surplus(
        self, tenant: str, *, at_most: int, ended_by: datetime | None, now: datetime, limit: int
    ) -> Sequence[Fact]:
        """Facts beyond so many: first those that have ended, the longest ended before others, then the oldest."""
