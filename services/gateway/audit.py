"""The audit: every refusal at the door and every act that changes who gets in, written once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from shared.clock import Clock
from shared.errors import Unavailable
from shared.identity import Principal
from shared.ids import Ids
from shared.log import log
from shared.paging import Page
from shared.rpc.log import request_id
from shared.telemetry import meter

REFUSED: Final = "admission.refused"
# Refusals of callers whose tenant nobody vouches for are kept under a name that no tenant can have.
STRANGERS: Final = "_strangers"
_WAITING: Final = 10_000
_BATCH: Final = 500

_lost = meter.create_counter("gateway_audit_lost", description="refusals that were logged and not stored: too many")


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One refusal or act. `reason` is empty for acts, `subject` for strangers."""

    id: str
    created_at: datetime
    subject: str
    action: str
    target: str
    reason: str = ""
    address: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """What is left open is not filtered by."""

    action: str = ""
    subject: str = ""
    start: datetime | None = None
    end: datetime | None = None


class AuditStore(Protocol):
    """Where entries are kept."""

    async def add(self, tenant: str, entries: Sequence[AuditEntry]) -> None: ...

    async def entries(self, tenant: str, wanted: AuditFilter, page: Page) -> Sequence[AuditEntry]:
        """Newest first, at most `page.size` + 1. The cursor is (time, id) of the last one seen."""


class Audit:
    """Acts are stored with the call; refusals behind it, in batches, so that a flood of them slows nobody."""

    def __init__(self, store: AuditStore, *, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self._waiting: asyncio.Queue[tuple[str, AuditEntry]] = asyncio.Queue(_WAITING)

    async def act(self, caller: Principal, action: str, target: str) -> None:
        """Raises Unavailable: what cannot be audited is not done quietly."""
        log.info("audit.act", action=action, target=target, subject=caller.subject)
        entry = self._entry(caller.subject, action, target, request=request_id())
        await self._store.add(caller.tenant_id, [entry])

    def refusal(self, caller: Principal | None, target: str, *, reason: str, address: str, request: str) -> None:
        """Notes a refusal, to be stored within a second."""
        subject, tenant = (caller.subject, caller.tenant_id) if caller else ("", STRANGERS)
        log.info("admission.denied", path=target, reason=reason, address=address, subject=subject, request_id=request)
        entry = self._entry(subject, REFUSED, target, reason=reason, address=address, request=request)
        try:
            self._waiting.put_nowait((tenant, entry))
        except asyncio.QueueFull:
            _lost.add(1)

    async def write(self) -> None:
        """Stores refusals as they come, for ever."""
        while True:
            batch = [await self._waiting.get()]
            while not self._waiting.empty() and len(batch) < _BATCH:
                batch.append(self._waiting.get_nowait())
            await self._store_all(batch)

    async def entries(self, tenant: str, wanted: AuditFilter, page: Page) -> Sequence[AuditEntry]:
        return await self._store.entries(tenant, wanted, page)

    async def _store_all(self, batch: Sequence[tuple[str, AuditEntry]]) -> None:
        for tenant in {tenant for tenant, _ in batch}:
            entries = [entry for owner, entry in batch if owner == tenant]
            try:
                await self._store.add(tenant, entries)
            except Unavailable:
                _lost.add(len(entries))
                log.error("audit.lost", count=len(entries))

    def _entry(
        self, subject: str, action: str, target: str, *, reason: str = "", address: str = "", request: str = ""
    ) -> AuditEntry:
        now, target = self._clock.now(), target[:255]
        return AuditEntry(self._ids.new("aud"), now, subject, action, target, reason, address, request)
