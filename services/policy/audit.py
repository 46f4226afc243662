"""The audit trail: every act that matters to security, in order, each entry sealed to the one before."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol

from shared.clock import Clock
from shared.log import log

HOT: Final = timedelta(days=90)
_FIRST: Final = "0" * 64


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One act. `seal` is the SHA-256 of the entry and the seal before it, so that an edit or a gap shows."""

    sequence: int
    actor: str
    act: str
    subject: str
    detail: Mapping[str, object]
    created_at: datetime
    seal: str = ""

    def sealed_after(self, before: str) -> str:
        data = [
            before, self.sequence, self.actor, self.act, self.subject, dict(self.detail), self.created_at.isoformat(),
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries. None and empty mean all; `archived` adds those older than the hot ones."""

    actor: str = ""
    act: str = ""
    start: datetime | None = None
    end: datetime | None = None
    archived: bool = False


@dataclass(frozen=True, slots=True)
class Integrity:
    """What checking the chain found: the first entry that does not fit, 0 when all do."""

    entries: int
    broken_at: int = 0


class AuditStore(Protocol):
    """Where the trail is kept. Entries are added and archived, never changed."""

    async def append(
        self, tenant: str, actor: str, act: str, subject: str, detail: Mapping[str, object], *, at: datetime
    ) -> AuditEntry:
        """Adds the next entry, sealed; one at a time per tenant."""

    async def entries(self, tenant: str, chosen: AuditFilter, *, after: int, limit: int) -> Sequence[AuditEntry]:
        """Entries in order, those after a sequence number."""

    async def archive(self, tenant: str, *, before: datetime) -> int:
        """Moves older entries out of the hot table; how many."""

    async def audited_tenants(self) -> Sequence[str]:
        """Every tenant that has a trail."""


@dataclass(frozen=True, slots=True)
class AuditLog:
    """The trail of every tenant."""

    store: AuditStore
    clock: Clock
    hot: timedelta = field(default=HOT)

    async def record(self, tenant: str, actor: str, act: str, subject: str, **detail: object) -> AuditEntry:
        """Writes down what was done. It is awaited before the act is answered: what is not audited did not happen."""
        return await self.store.append(tenant, actor, act, subject, detail, at=self.clock.now())

    async def archive(self, tenant: str) -> int:
        """Moves what is older than the hot time to the archive."""
        return await self.store.archive(tenant, before=self.clock.now() - self.hot)

    async def keep_archiving(self, every: timedelta) -> None:
        """Archives for all tenants, now and then, for as long as the service runs."""
        while True:
            for tenant in await self.store.audited_tenants():
                if moved := await self.archive(tenant):
                    log.info("audit.archived", tenant=tenant, entries=moved)
            await asyncio.sleep(every.total_seconds())

    async def verify(self, tenant: str) -> Integrity:
        """Reads the whole chain, archive and all."""
        before, count, after = _FIRST, 0, 0
        while batch := await self.store.entries(tenant, AuditFilter(archived=True), after=after, limit=1000):
            for entry in batch:
                count += 1
                if entry.sequence != after + 1 or entry.seal != entry.sealed_after(before):
                    return Integrity(count, broken_at=after + 1)
                before, after = entry.seal, entry.sequence
        return Integrity(count)


def first_seal() -> str:
    """What the first entry is sealed after."""
    return _FIRST
