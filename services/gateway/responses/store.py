"""What responses ask of storage: each as it was asked for, and once, what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol

KEPT: Final = timedelta(days=30)
LONGEST: Final = 100


@dataclass(frozen=True, slots=True)
class Record:
    """A response. `work_id` is the generation or session behind it; `asked` and, once it ended, `answer` are JSON.
    `previous_id` is empty for the first of a conversation.
    """

    id: str
    previous_id: str
    work_id: str
    background: bool
    created_at: datetime
    asked: bytes
    answer: bytes | None = None


@dataclass(frozen=True, slots=True)
class Due:
    """A response to be driven on, and how often somebody took it, this time included."""

    tenant: str
    id: str
    claims: int = field(default=0, compare=False)


class ResponseStore(Protocol):
    """Responses, by tenant, for KEPT. Those that replicas drive on are work until they end: a claim keeps others off it
    and no more, because all that is written is written once, whoever comes first.
    """

    async def begin(self, tenant: str, record: Record, *, work: bool = False) -> None:
        """Keeps it; as `work`, for the first who claims. Forgets those of the tenant that are older than KEPT."""

    async def claim(self, now: datetime, until: datetime, *, most: int) -> Sequence[Due]:
        """Takes what is due, of all tenants, the oldest first; it is due again at `until`."""

    async def renew(self, mine: Sequence[Due], until: datetime) -> Sequence[Due]:
        """Those that are work still, due again at `until`."""

    async def note(self, tenant: str, response_id: str, call: str, outcome: bytes) -> bytes | None:
        """Writes what a call brought, once: what stands. None when the response has ended, or is not there."""

    async def noted(self, tenant: str, response_id: str) -> Mapping[str, bytes]:
        """What its calls brought."""

    async def finish(self, tenant: str, response_id: str, answer: bytes) -> bool:
        """Writes what came of it, once, and it is work no more; False when that was written, or it is not there."""

    async def chain(self, tenant: str, response_id: str) -> Sequence[Record]:
        """It and those before it, oldest first, LONGEST at most; the last is it. Empty where it is not there."""

    async def forget(self, tenant: str, response_id: str) -> bool:
        """False when it was not there."""
