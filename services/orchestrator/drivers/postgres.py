"""The postgres driver: claims runs by lease, drives each in a task of its own, gives them back when it stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Protocol

import asyncpg

from services.orchestrator.drivers.runs import Driver, guard
from services.orchestrator.errors import LeaseLost
from services.orchestrator.leases_postgres import Renewal
from services.orchestrator.store import Lease, LeaseStore
from shared.errors import MeshError
from shared.log import log

_CHANNEL: Final = "orchestrator_wake"
# A replica takes a few at a time, so that many waiting sessions spread over the replicas.
_CLAIM_AT_ONCE: Final = 16
_SOON_SECONDS: Final = 0.05


@dataclass(slots=True)
class PostgresDriver:
    """All runs this replica drives."""

    leases: LeaseStore
    runs: Driver
    owner: str
    ttl: timedelta
    poll: timedelta
    limit: int
    _running: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _signals: dict[str, asyncio.Event] = field(default_factory=dict)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _soon: float = 0.0
    _reserved: int = 0
    _answered: asyncio.Event = field(default_factory=asyncio.Event)
    # Whether nothing waited when it was looked last.
    _idle: bool = False
    _claiming: asyncio.Future[Sequence[Lease]] | None = None

    async def claim(self) -> None:
        """Claims what is ready, for as long as the service runs."""
        while True:
            self._wake.clear()
            free = min(self.limit - len(self._running) - self._reserved, _CLAIM_AT_ONCE)
            claimed = await self._claimed(free) if free > 0 else []
            self._idle = free > 0 and not claimed
            for lease in claimed:
                self._drive(lease)
            if not claimed:
                # Not wait_for: before Python 3.12 it loses a cancel that comes together with the wake-up.
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.poll.total_seconds()):
                        await self._wake.wait()

    async def _claimed(self, free: int) -> Sequence[Lease]:
        """What is claimed while this is being cancelled is known to `drain`."""
        self._claiming = asyncio.ensure_future(self.leases.claim(self.owner, ttl=self.ttl, limit=free))
        claimed = await asyncio.shield(self._claiming)
        self._claiming = None
        return claimed

    def reserve(self, wanted: int) -> int:
        """While nothing waits for its turn, what this replica accepts is driven here as far as there is room."""
        free = self.limit - len(self._running) - self._reserved if self._idle else 0
        reserved = max(0, min(wanted, free))
        self._reserved += reserved
        return reserved

    def taken(self, leases: Sequence[Lease], *, reserved: int) -> None:
        self._reserved -= reserved
        for lease in leases:
            self._drive(lease)
        self._answered.set()

    def driven(self) -> list[str]:
        """The sessions being driven; asked for by the thread that renews them."""
        return list(self._running)

    def wake(self, session_id: str) -> None:
        """Something changed about a session: a new one, or a signal."""
        if session_id in self._signals:
            self._signals[session_id].set()
        self._wake.set()

    def wake_all(self) -> None:
        """Something may have changed about any session."""
        for signalled in self._signals.values():
            signalled.set()
        self._wake.set()

    async def guard(self, renewal: Renewal) -> None:
        """Stops driving when the leases could not be renewed: before anyone else may take them."""
        await guard(lambda: renewal.age, ttl=self.ttl, driven=self.driven, stop=self._stop_all)

    async def drain(self) -> None:
        """Stops driving; the sessions are free at once."""
        self.limit = 0
        await self._stop_all()
        while self._reserved:
            self._answered.clear()
            await self._answered.wait()
        await self._stop_all()
        if self._claiming is not None:
            (claimed,) = await asyncio.gather(self._claiming, return_exceptions=True)
            if not isinstance(claimed, BaseException):
                await asyncio.gather(*(self.leases.give_back(lease) for lease in claimed))

    def _drive(self, lease: Lease) -> None:
        signalled = self._signals[lease.session_id] = asyncio.Event()
        task = asyncio.create_task(self._driven(lease, signalled), name=f"session {lease.session_id}")
        self._running[lease.session_id] = task
        task.add_done_callback(lambda done: self._ended(lease.session_id, done))

    async def _driven(self, lease: Lease, signalled: asyncio.Event) -> None:
        try:
            await self.runs.drive(lease, signalled)
        except LeaseLost:
            log.warning("driver.lease_lost", session_id=lease.session_id)
        except MeshError as error:
            # A store is away: the lease is renewed no more and runs out, and whoever can goes on.
            log.warning("driver.failed", session_id=lease.session_id, error=error.message)
        except asyncio.CancelledError:
            await asyncio.shield(self.leases.give_back(lease))
            raise

    def _wake_soon(self) -> None:
        """What ends together is looked for together."""
        loop = asyncio.get_running_loop()
        if loop.time() > self._soon:
            self._soon = loop.time() + _SOON_SECONDS
            loop.call_at(self._soon, self._wake.set)

    async def _stop_all(self) -> None:
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, session_id: str, task: asyncio.Task[None]) -> None:
        if len(self._running) >= self.limit:
            self._wake.set()  # there is room again for what was left unclaimed
        else:
            self._wake_soon()  # a signal may have made it ready again
        if self._running.get(session_id) is task:
            del self._running[session_id], self._signals[session_id]
        if not task.cancelled() and (error := task.exception()):
            log.error("driver.fault", session_id=session_id, exc_info=error)


class Wakeable(Protocol):
    """Looks at what it is told has changed."""

    def wake(self, session_id: str) -> None: ...
    def wake_all(self) -> None: ...


async def listen(dsn: str, driver: Wakeable) -> None:
    """Hears NOTIFY for as long as the connection holds; who listens again looks everywhere first."""
    connection = await asyncpg.connect(dsn)
    lost = asyncio.Event()

    def heard(_connection: Any, _pid: int, _channel: str, session_id: object) -> None:
        driver.wake(str(session_id))

    try:
        connection.add_termination_listener(lambda _: lost.set())
        await connection.add_listener(_CHANNEL, heard)
        driver.wake_all()  # nobody heard what came while there was no connection
        await lost.wait()
    finally:
        await connection.close()


@asynccontextmanager
async def draining(driver: PostgresDriver) -> AsyncIterator[None]:
    """Gives sessions back at the end of the block."""
    try:
        yield
    finally:
        await driver.drain()
