"""Old rows of risks leave the hot tables: to a table beside them, or as compressed parts to a folder or S3."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, Protocol
from urllib.parse import quote

from services.policy.archive import zipped
from shared.clock import Clock
from shared.errors import MeshError
from shared.log import log
from shared.objects import Objects

HOT: Final = timedelta(days=90)
_PART: Final = 1000  # rows


class Kind(StrEnum):
    """What a row is of: an event, what a rule did, or a mitigation that the register does not show any more."""

    EVENT = "event"
    ACTION = "action"
    MITIGATION = "mitigation"


@dataclass(frozen=True, slots=True)
class OldRow:
    """One row as it was, its columns by name."""

    kind: Kind
    id: str
    created_at: datetime
    data: Mapping[str, object] = field(default_factory=dict)


class OldRisks(Protocol):
    """Where rows of risks are kept."""

    async def tenants(self) -> Sequence[str]:
        """Everybody who has some."""

    async def old(self, tenant: str, kind: Kind, *, before: datetime, limit: int) -> Sequence[OldRow]:
        """The oldest rows of a kind that nothing counts or shows any more."""

    async def let_go(self, tenant: str, rows: Sequence[OldRow], *, keep: bool) -> None:
        """Takes rows of one kind out of the hot table; with `keep`, into the table of old ones."""


@dataclass(frozen=True, slots=True)
class RiskArchivist:
    """Moves rows that are older than `hot`. Without `objects` the archive is a table. What is done twice is the same:
    whoever died between writing a part and letting its rows go writes them once more.
    """

    store: OldRisks
    clock: Clock
    objects: Objects | None = None
    hot: timedelta = HOT

    async def archive(self, tenant: str) -> int:
        """Moves all that is old; how many rows. Raises Unavailable."""
        before, moved = self.clock.now() - self.hot, 0
        for kind in Kind:
            while rows := await self.store.old(tenant, kind, before=before, limit=_PART):
                if self.objects:
                    await self.objects.put(*_packed(tenant, kind, rows))
                await self.store.let_go(tenant, rows, keep=self.objects is None)
                moved += len(rows)
        return moved

    async def run(self, every: timedelta) -> None:
        """Archives for all tenants, now and then, for as long as the service runs."""
        while True:
            try:
                for tenant in await self.store.tenants():
                    if moved := await self.archive(tenant):
                        log.info("risks.archived", tenant=tenant, rows=moved)
            except MeshError as error:
                log.warning("risks.not_archived", reason=error.reason_name, error=error.message)
            await asyncio.sleep(every.total_seconds())


def _packed(tenant: str, kind: Kind, rows: Sequence[OldRow]) -> tuple[str, bytes]:
    """Name and bytes of a part; the same rows make the same part."""
    data = zipped(dict(row.data) for row in rows)
    first = rows[0].created_at.astimezone(UTC)
    name = f"risks/{quote(tenant, safe='')}/{kind}/{first:%Y%m%dT%H%M%S}-{hashlib.sha256(data).hexdigest()[:16]}"
    return f"{name}.jsonl.gz", data
