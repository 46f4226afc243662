"""What the queue asks of storage: work, who has it, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from shared.identity import Principal
from shared.paging import Page


@dataclass(frozen=True, slots=True)
class Submitted:
    """One submitted generation. `outcome` is a GenerateTextResponse or, where it did not succeed, a Failure."""

    id: str
    created_at: datetime
    runs: int = 0
    running: bool = False
    succeeded: bool | None = None
    outcome: bytes = b""
    ended_at: datetime | None = None

    @property
    def place(self) -> tuple[str, str]:
        """Where it stands in a list by time."""
        return self.created_at.isoformat(timespec="microseconds"), self.id


@dataclass(frozen=True, slots=True)
class Depth:
    """What waits, what is run, and how long the oldest that may be run has waited."""

    waiting: int = 0
    running: int = 0
    oldest: timedelta = timedelta()


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to run one, until its lease ends. Every claim of it has a higher fence."""

    tenant: str
    id: str
    owner: str
    fence: int


@dataclass(frozen=True, slots=True)
class Work:
    """What to run for whom, and the how manieth time."""

    principal: Principal
    request: bytes
    run: int


class QueueStore(Protocol):
    """Where submitted generations are. What changes one that is being run needs a claim that still holds."""

    async def submit(self, principal: Principal, generation_id: str, request: bytes) -> None:
        """Once; the same id again changes nothing. Forgets what ended more than a day ago."""

    async def find(self, tenant: str, generation_id: str) -> Submitted | None:
        """As it is now."""

    async def list(self, tenant: str, page: Page, *, still_open: bool) -> Sequence[Submitted]:
        """The newest first, without outcomes, one more than the page has room for. A cursor is a `place`."""

    async def depth(self) -> Depth:
        """How much there is to do, of all tenants."""

    async def withdraw(self, tenant: str, generation_id: str, failure: bytes) -> bool:
        """Ends one that nobody runs; False when somebody does, or it has ended."""

    async def claim(self, owner: str, *, lease: timedelta, most: int) -> Sequence[Claim]:
        """Takes work that nobody has, tenants in turn, the oldest first."""

    async def renew(self, owner: str, claims: Sequence[Claim], *, lease: timedelta) -> Sequence[Claim]:
        """Those that still hold, for another lease."""

    async def begin(self, claim: Claim) -> Work | None:
        """Counts a run; None when the claim is lost or the work has ended."""

    async def end(self, claim: Claim, *, succeeded: bool, outcome: bytes) -> bool:
        """Writes what came of it and takes it off the queue, once; False when the claim is lost."""

    async def again(self, claim: Claim, *, after: timedelta) -> None:
        """Gives it back, for later."""
