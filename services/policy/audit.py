"""The audit trail: every act that matters to security, in order, each entry sealed to the one before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol

from services.policy.archive import Part, packed, unpacked
from services.policy.audit_entry import FIRST_SEAL, AuditEntry, KeyOf
from shared.clock import Clock
from shared.errors import Unavailable
from shared.log import log
from shared.objects import Objects

HOT: Final = timedelta(days=90)
_PART: Final = 1000  # entries


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries. None and empty mean all; `archived` adds those older than the hot ones."""

    actor: str = ""
    act: str = ""
    start: datetime | None = None
    end: datetime | None = None
    archived: bool = False

    def fits(self, entry: AuditEntry) -> bool:
        return (
            self.actor in ("", entry.actor)
            and self.act in ("", entry.act)
            and (self.start is None or entry.created_at >= self.start)
            and (self.end is None or entry.created_at < self.end)
        )


@dataclass(frozen=True, slots=True)
class Integrity:
    """What checking the chain found: the first entry that is missing or does not fit, 0 when all do."""

    entries: int
    broken_at: int = 0


class AuditStore(Protocol):
    """Where the trail is kept. Entries are added and archived, never changed."""

    async def append(
        self,
        tenant: str,
        actor: str,
        act: str,
        subject: str,
        detail: Mapping[str, object],
        *,
        at: datetime,
        key: bytes,
    ) -> AuditEntry:
        """Adds the next entry, sealed with the key; one at a time per tenant."""

    async def entries(self, tenant: str, chosen: AuditFilter, *, after: int, limit: int) -> Sequence[AuditEntry]:
        """Entries that are not in parts, in order, those after a sequence number."""

    async def head(self, tenant: str) -> tuple[int, str]:
        """The last entry's sequence and seal."""

    async def archive(self, tenant: str, *, before: datetime) -> int:
        """Moves older entries out of the hot table; how many."""

    async def move_to(self, tenant: str, part: Part) -> None:
        """Takes the part's entries out of the hot table and notes where they lie now. Twice is once."""

    async def parts(self, tenant: str) -> Sequence[Part]:
        """Where archived entries lie, in order."""

    async def audited_tenants(self) -> Sequence[str]:
        """Every tenant that has a trail."""


@dataclass(frozen=True, slots=True)
class AuditLog:
    """The trail of every tenant. Without `objects` the archive is a table beside the hot one."""

    store: AuditStore
    clock: Clock
    key_of: KeyOf
    objects: Objects | None = None
    hot: timedelta = field(default=HOT)

    async def record(self, tenant: str, actor: str, act: str, subject: str, **detail: object) -> AuditEntry:
        """Writes down what was done. It is awaited before the act is answered: what is not audited did not happen."""
        return await self.store.append(
            tenant, actor, act, subject, detail, at=self.clock.now(), key=self.key_of(tenant)
        )

    async def entries(self, tenant: str, chosen: AuditFilter, *, after: int, limit: int) -> list[AuditEntry]:
        """Entries in order, those after a sequence number. Raises Unavailable when the archive is asked and is away."""
        found: list[AuditEntry] = []
        if chosen.archived:
            async for entry in self._archived(tenant, after):
                if chosen.fits(entry):
                    found.append(entry)
                if len(found) == limit:
                    break
        found += await self.store.entries(tenant, chosen, after=after, limit=limit)
        return sorted(found, key=lambda entry: entry.sequence)[:limit]

    async def archive(self, tenant: str) -> int:
        """Moves what is older than the hot time to the archive; how many entries."""
        before = self.clock.now() - self.hot
        if self.objects is None:
            return await self.store.archive(tenant, before=before)
        moved = 0
        while old := await self.store.entries(tenant, AuditFilter(end=before), after=0, limit=_PART):
            part, data = packed(tenant, old)
            await self.objects.put(part.name, data)
            await self.store.move_to(tenant, part)
            moved += len(old)
        return moved

    async def keep_archiving(self, every: timedelta) -> None:
        """Archives for all tenants, now and then, for as long as the service runs."""
        while True:
            for tenant in await self.store.audited_tenants():
                try:
                    moved = await self.archive(tenant)
                except Unavailable as error:
                    log.warning("audit.archive_away", tenant=tenant, error=error.message)
                    continue
                if moved:
                    log.info("audit.archived", tenant=tenant, entries=moved)
            await asyncio.sleep(every.total_seconds())

    async def verify(self, tenant: str) -> Integrity:
        """Reads the whole chain, archive and all, up to the entry that was written last."""
        key, before, count, after = self.key_of(tenant), FIRST_SEAL, 0, 0
        last, seal = await self.store.head(tenant)
        while after < last:
            try:
                batch = await self.entries(tenant, AuditFilter(archived=True), after=after, limit=_PART)
            except Unavailable:
                return Integrity(count, broken_at=after + 1)
            for entry in batch:
                if entry.sequence != after + 1 or not entry.follows(before, key):
                    return Integrity(count, broken_at=after + 1)
                count, before, after = count + 1, entry.seal, entry.sequence
                if after == last and before != seal:
                    return Integrity(count, broken_at=after)
            if not batch:
                return Integrity(count, broken_at=after + 1)
        return Integrity(count)

    async def _archived(self, tenant: str, after: int) -> AsyncIterator[AuditEntry]:
        for part in await self.store.parts(tenant):
            if part.last <= after or self.objects is None:
                continue
            for entry in await unpacked(self.objects, part):
                if entry.sequence > after:
                    yield entry
