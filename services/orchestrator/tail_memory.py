"""The live end of logs in memory, for tests and for whatever lives no longer than its process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from services.orchestrator.errors import LeaseLost
from services.orchestrator.store import Entry, Lease

Place = tuple[str, str]


@dataclass(slots=True)
class _Live:
    """One live stream and the highest fence that wrote it."""

    fence: int = 0
    payloads: dict[int, bytes] = field(default_factory=dict)


class MemoryTail:
    """The live end of logs. `flush` loses it, as Redis can."""

    def __init__(self) -> None:
        self._live: dict[Place, _Live] = {}
        self._waiting: dict[Place, list[asyncio.Event]] = {}
        self._came: WeakValueDictionary[Place, asyncio.Event] = WeakValueDictionary()

    async def append(self, lease: Lease, entries: Sequence[Entry], *, keep_from: int = 0) -> int | None:
        live = self._live.setdefault((lease.tenant, lease.session_id), _Live())
        if lease.fence < live.fence:
            return None
        if lease.fence > live.fence:
            live.payloads.clear()
        live.fence = lease.fence
        top = max(live.payloads, default=0)
        live.payloads.update({entry.sequence: entry.payload for entry in entries if entry.sequence > top})
        for sequence in [known for known in live.payloads if known < keep_from]:
            del live.payloads[sequence]
        self.wake(lease, ())
        return await self.readers(lease.tenant, lease.session_id)

    async def readers(self, tenant: str, session_id: str) -> int:
        return len(self._waiting.get((tenant, session_id), ()))

    def wake(self, lease: Lease, committed: Sequence[Entry]) -> None:
        for waiting in self._waiting.get((lease.tenant, lease.session_id), ()):
            waiting.set()

    async def take_over(self, lease: Lease, after: int) -> Sequence[Entry]:
        live = self._live.setdefault((lease.tenant, lease.session_id), _Live())
        if lease.fence < live.fence:
            raise LeaseLost("another replica drives the session", session_id=lease.session_id)
        live.fence = lease.fence
        kept = await self.read(lease.tenant, lease.session_id, after)
        live.payloads = {entry.sequence: entry.payload for entry in kept}
        return kept

    async def read(self, tenant: str, session_id: str, after: int) -> Sequence[Entry]:
        payloads = self._live.get((tenant, session_id), _Live()).payloads
        kept: list[Entry] = []
        while payload := payloads.get(after + 1 + len(kept)):
            kept.append(Entry(after + 1 + len(kept), "", payload))
        return kept

    async def holds(self, tenant: str, session_id: str, sequence: int) -> bool:
        return sequence in self._live.get((tenant, session_id), _Live()).payloads

    def reader_came(self, tenant: str, session_id: str) -> asyncio.Event:
        return self._came.setdefault((tenant, session_id), asyncio.Event())

    @contextmanager
    def woken(self, tenant: str, session_id: str) -> Iterator[asyncio.Event]:
        event = asyncio.Event()
        waiting = self._waiting.setdefault((tenant, session_id), [])
        waiting.append(event)
        if (came := self._came.get((tenant, session_id))) is not None:
            came.set()
        try:
            yield event
        finally:
            waiting.remove(event)

    def flush(self) -> None:
        self._live.clear()
