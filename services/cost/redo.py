"""Makes fast commits safe: what the database said yes to is kept until it is on its disk, and done again if it may be
lost.

A commit that does not wait for the disk is visible at once and lost only if Postgres itself is killed within the next
moments. Each such statement is remembered here; one commit that does wait, every few milliseconds, brings all before it
to the disk. When the connection that does so breaks, everything still remembered is done again: each statement is
idempotent.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final, Protocol

import asyncpg

from shared.log import log
from shared.postgres import Connection, Database
from shared.tasks import supervised

_PAUSE: Final = timedelta(milliseconds=20)
_LAST: Final = timedelta(seconds=10)
_MOST: Final = 20_000  # statements kept at most; beyond it commits wait for the disk themselves


class Statement(Protocol):
    """A statement that can be done again."""

    async def again(self, connection: Connection) -> None:
        """Does it, waiting for the disk."""


class Redo:
    """Statements the database has answered and may not have written yet, oldest first."""

    def __init__(self, database: Database, *, barrier: str) -> None:
        self._database = database
        self._barrier = barrier
        self._kept: deque[Statement] = deque()
        self._some = asyncio.Event()
        self._none = asyncio.Event()
        self._none.set()
        self._running = False

    @property
    def durable(self) -> bool:
        """Whether a commit must wait for the disk itself: while nobody watches over it, or too much is kept."""
        return not self._running or len(self._kept) >= _MOST

    def keep(self, statement: Statement) -> None:
        """Remembers it until it is on the disk."""
        self._kept.append(statement)
        self._none.clear()
        self._some.set()

    @property
    def kept(self) -> int:
        """How many statements may not be on the disk yet."""
        return len(self._kept)

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Watches over fast commits while the block runs; at its end everything is on the disk or has been logged."""
        async with supervised("redo", self._watch):
            try:
                yield
            finally:
                self._running = False
                async with asyncio.timeout(_LAST.total_seconds()):
                    await self._none.wait()

    async def _watch(self) -> None:
        async with self._database.connection() as connection:
            await self._do_again(connection)
            self._running = True
            while True:
                await self._some.wait()
                await asyncio.sleep(_PAUSE.total_seconds())
                await self._flush(connection)

    async def _flush(self, connection: Connection) -> None:
        self._some.clear()
        count = len(self._kept)
        await connection.execute(self._barrier)
        for _ in range(count):
            self._kept.popleft()
        if not self._kept:
            self._none.set()

    async def _do_again(self, connection: Connection) -> None:
        """What was answered before this connection was opened may be lost."""
        if self._kept:
            log.warning("redo.again", statements=len(self._kept))
        for statement in tuple(self._kept):
            try:
                await statement.again(connection)
            except (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError) as error:
                log.error("redo.refused", error=str(error))
        self._some.set()
