"""Stores as a process sees them that dies at a write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from services.orchestrator.store import Entry, Lease
from services.orchestrator.store_memory import MemorySessionStore
from services.orchestrator.tail_memory import MemoryTail

Moment = Literal["before", "after"]


class Killed(Exception):
    """The process is gone. Nothing catches it."""


@dataclass(slots=True)
class Fate:
    """Counts a driver's writes and ends it at one of them."""

    at: int
    moment: Moment
    writes: int = field(default=0)

    def before(self) -> None:
        self.writes += 1
        last = self.at - 1 if self.moment == "before" else self.at
        if self.writes > last:
            raise Killed

    def after(self) -> None:
        if self.writes >= self.at:
            raise Killed


class MortalStore(MemorySessionStore):
    """The store as a process sees it that dies at a write."""

    def __init__(self, real: MemorySessionStore, fate: Fate) -> None:
        super().__init__(real._leases)
        self._kept = real._kept
        self._fate = fate

    async def append(self, lease: Lease, entries: Sequence[Entry], **given: Any) -> None:
        self._fate.before()
        await super().append(lease, entries, **given)
        self._fate.after()


class MortalTail(MemoryTail):
    """The tail as a process sees it that dies at a write."""

    def __init__(self, real: MemoryTail, fate: Fate) -> None:
        super().__init__()
        self._live, self._waiting, self._came = real._live, real._waiting, real._came
        self._fate = fate

    async def append(self, lease: Lease, entries: Sequence[Entry], *, keep_from: int = 0) -> bool:
        self._fate.before()
        done = await super().append(lease, entries, keep_from=keep_from)
        self._fate.after()
        return done
