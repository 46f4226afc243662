"""The real lease store, by the role that sees leases alone; renewed in one statement from a thread of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final, Self

import asyncpg

from services.orchestrator.store import Lease
from services.orchestrator.store_postgres import SQL
from shared.postgres import Database

_RENEWALS_PER_TTL: Final = 4


class PostgresLeaseStore:
    """The table session_lease."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, owner: str, *, ttl: timedelta, limit: int) -> Sequence[Lease]:
        return [Lease(*row) for row in await self._database.statement(SQL["claim"], owner, ttl, limit)]

    async def due(self, *, until: timedelta, limit: int) -> Sequence[tuple[str, str]]:
        return [(row[0], row[1]) for row in await self._database.statement(SQL["claim"], None, until, limit)]

    async def take(self, tenant: str, session_id: str, owner: str, *, ttl: timedelta) -> Lease | None:
        rows = await self._database.statement(SQL["take"], tenant, session_id, owner, ttl)
        return Lease(*rows[0]) if rows else None

    async def tenants(self) -> Sequence[str]:
        """Everybody who ever had a run."""
        async with self._database.transaction() as connection:
            return [row[0] for row in await connection.fetch(SQL["tenants"])]

    async def give_back(self, lease: Lease) -> None:
        await self._database.statement(SQL["give_back"], lease.tenant, lease.session_id, lease.fence)


class Renewal:
    """Renews the leases of what an owner drives, whatever its event loop is doing. A session it no longer drives, for
    instance after a fault, is left to run out. `age` tells how long ago that last worked.
    """

    def __init__(self, dsn: str, owner: str, *, ttl: timedelta, driven: Callable[[], Sequence[str]]) -> None:
        self._dsn = dsn
        self._owner = owner
        self._ttl = ttl
        self._driven = driven
        self._stop = threading.Event()
        self._renewed_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)

    @property
    def age(self) -> timedelta:
        return timedelta(seconds=time.monotonic() - self._renewed_at)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=2)

    def _run(self) -> None:
        asyncio.run(self._renew())

    async def _renew(self) -> None:
        pause, patience = self._ttl.total_seconds() / _RENEWALS_PER_TTL, self._ttl.total_seconds() / 2
        connection: asyncpg.Connection[asyncpg.Record] | None = None
        while not self._stop.is_set():
            asked_at = time.monotonic()
            try:
                if connection is None or connection.is_closed():
                    connection = await asyncpg.connect(self._dsn, timeout=pause)
                await connection.execute(SQL["renew"], self._owner, self._ttl, self._driven(), timeout=patience)
                self._renewed_at = asked_at
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
                if connection is not None:
                    connection.terminate()
                connection = None
            await asyncio.sleep(max(0.0, asked_at + pause - time.monotonic()))
        if connection is not None:
            await connection.close()
