"""Replicas of an orchestrator in this process, driving by Postgres' way or by Temporal; they drain, crash and come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from services.orchestrator.drivers.homes import Homes
from services.orchestrator.drivers.postgres import PostgresDriver
from services.orchestrator.drivers.temporal import TemporalDriver, working
from services.orchestrator.store import Lease
from tests.support.orchestrator import POLL, TTL, World
from tests.support.temporal import temporal_client

_QUEUES = count(1)


@dataclass(slots=True)
class Replica:
    """One replica. Leaving its block drains it, unless it crashed."""

    wake: Callable[[str], None]
    driven: Callable[[], list[str]]
    crash: Callable[[], Awaitable[None]]


@dataclass(slots=True)
class _Leases:
    """Who crashed gives nothing back."""

    real: Any
    crashed: bool = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    async def give_back(self, lease: Lease) -> None:
        if not self.crashed:
            await self.real.give_back(lease)


@dataclass(slots=True)
class Drivers:
    """What replicas of one deployment share. Without Temporal's address they drive by leases alone."""

    temporal: str | None = None
    longest_history: int = 8_000
    queue: str = field(default_factory=lambda: f"agentnet-{next(_QUEUES)}")

    @asynccontextmanager
    async def replica(self, world: World, owner: str = "one", *, limit: int = 9) -> AsyncIterator[Replica]:
        make = self._by_leases if self.temporal is None else self._by_temporal
        async with make(world, owner, limit) as (replica, background):
            world.leases.hear.append(replica.wake)
            tasks = [asyncio.create_task(work) for work in background]
            try:
                yield replica
            finally:
                world.leases.hear.remove(replica.wake)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    @asynccontextmanager
    async def _by_leases(self, world: World, owner: str, limit: int) -> AsyncIterator[tuple[Replica, list[Any]]]:
        leases = _Leases(world.leases)
        driver = PostgresDriver(leases, world.runs(), owner, TTL, POLL, limit)

        async def crash() -> None:
            leases.crashed, driver.limit = True, 0
            await driver.drain()
            world.clock.advance(TTL * 2)

        try:
            yield Replica(driver.wake, driver.driven, crash), [driver.claim()]
        finally:
            await driver.drain()

    @asynccontextmanager
    async def _by_temporal(self, world: World, owner: str, limit: int) -> AsyncIterator[tuple[Replica, list[Any]]]:
        client = await temporal_client(self.temporal or "")
        homes = Homes(world.leases, world.runs(), owner, f"{self.queue}/{owner}", TTL, limit)
        driver = TemporalDriver(client, world.leases, homes, self.queue, POLL, self.longest_history)

        async def crash() -> None:
            homes.closing = True
            await homes.crash()

        async with AsyncExitStack() as stack:
            await stack.enter_async_context(working(client, homes, task_queue=self.queue))
            yield Replica(driver.wake, homes.driven, crash), [driver.dispatch()]
