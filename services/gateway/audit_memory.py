"""The honest fake of the audit's store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from services.gateway.audit import AuditEntry, AuditFilter
from shared.paging import Page


class MemoryAuditStore:
    """Everything is gone when the process ends."""

    def __init__(self) -> None:
        self._entries: dict[str, list[AuditEntry]] = {}

    async def add(self, tenant: str, entries: Sequence[AuditEntry]) -> None:
        self._entries.setdefault(tenant, []).extend(entries)

    async def entries(self, tenant: str, wanted: AuditFilter, page: Page) -> Sequence[AuditEntry]:
        found = [entry for entry in self._entries.get(tenant, []) if _fits(entry, wanted)]
        found.sort(key=_place, reverse=True)
        at, last = page.place
        return [entry for entry in found if at is None or _place(entry) < (at, last)][: page.size + 1]


def _fits(entry: AuditEntry, wanted: AuditFilter) -> bool:
    return (
        wanted.action in {"", entry.action}
        and wanted.subject in {"", entry.subject}
        and (wanted.start is None or entry.created_at >= wanted.start)
        and (wanted.end is None or entry.created_at < wanted.end)
    )


def _place(entry: AuditEntry) -> tuple[datetime, str]:
    return entry.created_at, entry.id
