"""Which memories were found of late, noted in passing and written in batches: recalling never waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from services.memory.store import MemoryStore
from shared.clock import Clock
from shared.log import log

_MOST: Final = 50_000


class Used:
    """What is noted here and not yet written is lost with the process; it only makes pruning a little less exact."""

    def __init__(self, store: MemoryStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._noted: dict[str, set[int]] = {}
        self._count = 0

    def note(self, tenant: str, places: Sequence[int]) -> None:
        """Memories were found."""
        if self._count < _MOST:
            self._noted.setdefault(tenant, set()).update(places)
            self._count += len(places)

    async def write(self) -> None:
        """Writes what was noted."""
        noted, self._noted, self._count = self._noted, {}, 0
        for tenant, places in noted.items():
            if places:
                await self._store.used(tenant, sorted(places), now=self._clock.now())
        if noted:
            log.debug("memory.used", tenants=len(noted))

    async def run(self, every: timedelta) -> None:
        """Writes now and then, for ever."""
        while True:
            await asyncio.sleep(every.total_seconds())
            await self.write()
