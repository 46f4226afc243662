"""The watch: while a tenant spends through this replica, it is looked at every few seconds."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

from services.cost.alerts import Lookout
from shared.clock import Clock
from shared.errors import MeshError
from shared.log import log
from shared.postgres import REFUSED

_QUIET: Final = timedelta(hours=2)


class Watch:
    """Knows who spends, and looks at them in turn."""

    def __init__(self, lookout: Lookout, *, clock: Clock, every: timedelta) -> None:
        self._lookout = lookout
        self._clock = clock
        self._every = every
        self._seen: dict[str, timedelta] = {}

    def seen(self, tenant: str) -> None:
        """The tenant spends, or would."""
        self._seen[tenant] = self._clock.monotonic()

    async def run(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(self._every.total_seconds())
            await self.round()

    async def round(self) -> None:
        """Looks once at everyone who spent lately. One tenant's trouble is not another's."""
        now = self._clock.monotonic()
        self._seen = {tenant: at for tenant, at in self._seen.items() if now - at < _QUIET}
        for tenant in tuple(self._seen):
            try:
                await self._lookout.look(tenant)
            except (MeshError, *REFUSED) as error:
                log.warning("cost.watch_failed", tenant=tenant, error=str(error))
