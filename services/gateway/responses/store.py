"""What responses ask of storage: each as it was asked for, and once, what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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


class ResponseStore(Protocol):
    """Responses, by tenant, for KEPT."""

    async def begin(self, tenant: str, record: Record) -> None:
        """Keeps it. Forgets those of the tenant that are older than KEPT."""

    async def finish(self, tenant: str, response_id: str, answer: bytes) -> bool:
        """Writes what came of it, once; False when that was written, or it is not there."""

    async def chain(self, tenant: str, response_id: str) -> Sequence[Record]:
        """It and those before it, oldest first, LONGEST at most; the last is it. Empty where it is not there."""

    async def forget(self, tenant: str, response_id: str) -> bool:
        """False when it was not there."""
