"""Memory within its bounds: how full a tenant is, when storing slows down, and what goes first."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from services.memory.errors import MemoryFull
from services.memory.receipts import RETENTION
from services.memory.store import Filter, Memory, MemoryStore, MemoryType, Receipt, Usage
from shared.clock import Clock
from shared.ids import Ids
from shared.log import log
from shared.paging import Page
from shared.risks import MEMORY_BLOAT, Happened, Tell, untold
from shared.telemetry import meter

THROTTLED_FROM: Final = 0.9
_STALE: Final = timedelta(seconds=15)
_SLOWEST: Final = timedelta(seconds=1)
_BATCH: Final = 500
# So many at once are a bulk, and it goes on until none came for so long.
_BULK: Final = 50
_PAUSE: Final = timedelta(seconds=3)
_TENANTS: Final = 10_000
_pressed = meter.create_counter("memory_pressed", description="storing near a tenant's limit, by slowed or refused")

Pause = Callable[[float], Awaitable[None]]
# An agent and its session, either of them empty.
Whose = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Pressure:
    """How near a tenant is to its limit."""

    usage: Sequence[Usage]
    limit: int

    @property
    def share(self) -> float:
        return sum(one.memories for one in self.usage) / self.limit

    @property
    def throttled(self) -> bool:
        return self.share >= THROTTLED_FROM


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many memories went, and why."""

    expired: int
    aged: int
    crowded_out: int


class Limits:
    """How many memories a tenant may keep. The count may be a few seconds old; a tenant can go over by as much."""

    def __init__(
        self, store: MemoryStore, clock: Clock, *, memories: int, pause: Pause = asyncio.sleep, tell: Tell = untold
    ) -> None:
        self._store = store
        self._clock = clock
        self._limit = memories
        self._pause = pause
        self._tell = tell
        self._counted: dict[str, tuple[timedelta, int]] = {}
        self._stored: set[str] = set()
        self._bulks: dict[str, timedelta] = {}

    def take_stored(self) -> set[str]:
        """The tenants that stored something since this was last asked."""
        stored, self._stored = self._stored, set()
        return stored

    def busy(self, tenant: str) -> bool:
        """Whether a bulk of the tenant's is going on."""
        last = self._bulks.get(tenant)
        return last is not None and self._clock.monotonic() - last < _PAUSE

    def freed(self, tenant: str) -> None:
        """Something of the tenant's is gone: who was slowed down need not wait until that is counted again."""
        _, held = self._counted.get(tenant, (None, 0))
        if held > self._limit * THROTTLED_FROM:
            del self._counted[tenant]

    async def pressure(self, tenant: str) -> Pressure:
        return Pressure(await self._store.usage(tenant), self._limit)

    async def admit(self, tenant: str, more: int, by: Collection[Whose] = ()) -> None:
        """Lets storing pass, slower the nearer the limit is. Raises MemoryFull at the limit."""
        self._stored.add(tenant)
        if more >= _BULK:
            self._noted(tenant)
        held = await self._held(tenant)
        if held + more > self._limit:
            self._counted.pop(tenant, None)
            _pressed.add(1, {"outcome": "refused"})
            log.warning("memory.full", tenant=tenant, held=held, limit=self._limit)
            self._bloated(tenant, by, held, 1.0)
            raise MemoryFull(
                f"the tenant keeps {held} memories and may keep {self._limit}", limit=str(self._limit), held=str(held)
            )
        self._counted[tenant] = (self._counted[tenant][0], held + more)
        over = (held / self._limit - THROTTLED_FROM) / (1 - THROTTLED_FROM)
        if over > 0:
            _pressed.add(1, {"outcome": "slowed"})
            log.warning("memory.throttled", tenant=tenant, held=held, limit=self._limit)
            self._bloated(tenant, by, held, over)
            await self._pause(over * _SLOWEST.total_seconds())

    def _noted(self, tenant: str) -> None:
        if len(self._bulks) >= _TENANTS:
            self._bulks.clear()
        self._bulks[tenant] = self._clock.monotonic()

    def _bloated(self, tenant: str, by: Collection[Whose], held: int, share: float) -> None:
        """Tells policy of each agent that stores where little room is left: `share` of the last tenth is taken."""
        detail = {"held": str(held), "limit": str(self._limit)}
        for agent, session_id in dict(by).items():
            self._tell(tenant, Happened(MEMORY_BLOAT, min(share, 1.0), agent, session_id, detail), agent)

    async def _held(self, tenant: str) -> int:
        counted = self._counted.get(tenant)
        now = self._clock.monotonic()
        if counted is None or now - counted[0] > _STALE:
            if len(self._counted) >= _TENANTS:
                self._counted.clear()
            counted = (now, sum(one.memories for one in await self._store.usage(tenant)))
            self._counted[tenant] = counted
        return counted[1]


class Upkeep:
    """Ends what has outlived its time or its room, with receipts."""

    def __init__(self, store: MemoryStore, limits: Limits, clock: Clock, ids: Ids) -> None:
        self._ids = ids
        self._store = store
        self._limits = limits
        self._clock = clock
        self._late: set[str] = set()

    async def pressure(self, tenant: str) -> Pressure:
        """What a tenant keeps, and how near its limit that is."""
        return await self._limits.pressure(tenant)

    async def run(self, every: timedelta) -> None:
        """Prunes all tenants, for ever."""
        while True:
            await asyncio.sleep(every.total_seconds())
            for tenant in await self._store.tenants():
                pruned = await self.prune(tenant, dry_run=False)
                if pruned != Pruned(0, 0, 0):
                    log.info("memory.pruned", tenant=tenant, expired=pruned.expired, aged=pruned.aged,
                             crowded_out=pruned.crowded_out)  # fmt: skip

    async def run_tending(self, every: timedelta) -> None:
        """Keeps the index near what was stored of late, for ever."""
        self._late.update(await self._store.tenants())
        while True:
            await asyncio.sleep(every.total_seconds())
            await self.tend()

    async def tend(self) -> None:
        """Once, for the tenants that stored something since the last time, and those whose bulk was waited for."""
        tenants, self._late = self._limits.take_stored() | self._late, set()
        for tenant in sorted(tenants):
            busy = partial(self._limits.busy, tenant)
            moved = await self._store.tend(tenant, busy=busy)
            if moved:
                log.info("memory.indexed", tenant=tenant, memories=moved)
            if busy():
                self._late.add(tenant)

    async def prune(self, tenant: str, *, dry_run: bool) -> Pruned:
        """What has ended, what is older than its type is kept, what its type has no room for."""
        now = self._clock.now()
        usage = await self._store.usage(tenant)
        expired = await self._empty(
            tenant, lambda: self._store.ended(tenant, before=now, limit=_BATCH), dry_run=dry_run
        )
        aged = sum([await self._age(tenant, one, now, dry_run=dry_run) for one in usage if one.max_days])
        usage = usage if dry_run else await self._store.usage(tenant)
        crowded = sum([await self._crowd_out(tenant, one, dry_run=dry_run) for one in usage if one.max_memories])
        return Pruned(expired, aged, crowded)

    async def _age(self, tenant: str, kept: Usage, now: datetime, *, dry_run: bool) -> int:
        chosen = Filter(types=(kept.memory_type,), end=now - timedelta(days=kept.max_days))

        async def old() -> Sequence[Memory]:
            found = await self._store.every(tenant, chosen, now=now, newest_first=False, page=Page(_BATCH))
            return found[:_BATCH]

        return await self._empty(tenant, old, dry_run=dry_run)

    async def _crowd_out(self, tenant: str, kept: Usage, *, dry_run: bool) -> int:
        over = max(kept.memories - kept.max_memories, 0)
        if dry_run:
            return over
        gone = 0
        while gone < over:
            least = await self._store.least(tenant, kept.memory_type, limit=min(_BATCH, over - gone))
            if not least:
                break
            gone += await self._forget(tenant, least)
        return gone

    async def _empty(self, tenant: str, batch: Callable[[], Awaitable[Sequence[Memory]]], *, dry_run: bool) -> int:
        """Deletes batch after batch; on a dry run the first batch is counted, so at most that many are told."""
        gone = 0
        while found := await batch():
            if dry_run:
                return len(found)
            gone += await self._forget(tenant, found)
        return gone

    async def _forget(self, tenant: str, many: Sequence[Memory]) -> int:
        now = self._clock.now()
        receipts = [Receipt(self._ids.new("rct"), one.id, one.content_hash, RETENTION, now) for one in many]
        gone = await self._store.forget(tenant, many, receipts)
        self._limits.freed(tenant)
        return len(gone)

    async def set_retention(self, tenant: str, memory_type: MemoryType, *, max_memories: int, max_days: int) -> None:
        """Bounds a type."""
        await self._store.set_retention(tenant, memory_type, max_memories=max_memories, max_days=max_days)
