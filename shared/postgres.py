"""Postgres as the mesh uses it: a pool per service, every transaction inside one tenant, SQL by name from files."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import asyncpg

from shared.errors import InvalidArgument, Unavailable

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"

Prepare = Callable[["asyncpg.Connection[asyncpg.Record]"], Awaitable[None]]

_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)
_SET_TENANT = "select set_config('app.tenant', $1, true)"
# The driver calls it internal when a statement meets a connection that is breaking just then.
_LOST = (
    OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.InternalClientError,
    asyncpg.CannotConnectNowError, asyncpg.AdminShutdownError, asyncpg.CrashShutdownError,
)  # fmt: skip
# What Postgres has no room for: U+0000, in texts and in JSON.
_UNWRITABLE = (asyncpg.CharacterNotInRepertoireError, asyncpg.UntranslatableCharacterError)


class TextUnwritable(InvalidArgument):
    """A text holds U+0000, for which Postgres has no room."""


# What is wrong with what one asked, when Postgres refuses a statement that does the work of many.
REFUSED: Final = (asyncpg.PostgresError, TextUnwritable)


@contextmanager
def _told() -> Iterator[None]:
    """Raises Unavailable when Postgres does not answer, TextUnwritable when a text cannot be kept."""
    try:
        yield
    except _LOST as error:
        raise Unavailable("the database does not answer", dependency="postgres") from error
    except _UNWRITABLE as error:
        raise TextUnwritable("a text must not hold the character U+0000", field="(message)") from error


class Queries(dict[str, str]):
    """SQL texts by name."""


def load_queries(path: Path) -> Queries:
    """Reads a file of queries, each under a line `-- name: <name>`."""
    _, *parts = _NAME.split(path.read_text())
    return Queries({name: sql.strip() for name, sql in zip(parts[::2], parts[1::2], strict=True)})


class Database:
    """A pool of one role's connections. `at_hand`: one is not given back after a statement but kept for the next, which
    spares it what a pool does around each use.
    """

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], *, at_hand: bool = False) -> None:
        self._pool = pool
        self._keeps = at_hand
        self._kept: Connection | None = None

    @asynccontextmanager
    async def tenant(self, tenant_id: str) -> AsyncIterator[Connection]:
        """A connection in a transaction that sees and writes one tenant's rows; commits at the end or rolls back.

        Raises Unavailable when Postgres does not answer.
        """
        async with self.transaction() as connection:
            await connection.execute(_SET_TENANT, tenant_id)
            yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection in a transaction without a tenant: for tables and roles whose policies allow that."""
        with _told():
            async with self._pool.acquire() as connection, connection.transaction():
                yield connection

    async def statement(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """The rows of one statement that is its own transaction: one round trip. Raises Unavailable."""
        with _told():
            connection = await self._taken()
            try:
                rows = await connection.fetch(query, *arguments)
            except BaseException:
                await self._pool.release(connection)
                raise
            if self._keeps and self._kept is None:
                self._kept = connection
            else:
                await self._pool.release(connection)
            return rows

    async def _taken(self) -> Connection:
        kept, self._kept = self._kept, None
        if kept is None:
            return await self._pool.acquire()
        if kept.is_closed():
            await self._pool.release(kept)
            return await self._pool.acquire()
        return kept

    async def give_back(self) -> None:
        """The connection kept at hand, to the pool."""
        if self._kept is not None:
            kept, self._kept, self._keeps = self._kept, None, False
            await self._pool.release(kept)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection for as long as the block runs, outside a transaction. Raises Unavailable."""
        with _told():
            async with self._pool.acquire() as connection:
                yield connection

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[Connection]:
        """A connection outside any transaction: for a single statement that sets its tenant itself.

        Raises Unavailable when Postgres does not answer.
        """
        with _told():
            async with self._pool.acquire() as connection:
                yield connection

    async def ping(self) -> None:
        """Raises Unavailable when Postgres does not answer."""
        async with self.transaction() as connection:
            await connection.execute("select 1")


@asynccontextmanager
async def open_database(
    dsn: str, *, pool: int = 8, prepare: Prepare | None = None, stateless: bool = False
) -> AsyncIterator[Database]:
    """Opens a pool of at most `pool` connections and closes it at the end. jsonb columns are plain JSON data; `prepare`
    teaches each connection further types. `stateless`: nothing outlives a transaction on them, so they are not reset
    after use, which spares a round trip, and one more than `pool` may be kept at hand for single statements.
    """

    async def init(connection: asyncpg.Connection[asyncpg.Record]) -> None:
        await _prepare(connection)
        if prepare:
            await prepare(connection)

    kind: type[asyncpg.Connection[asyncpg.Record]] = _Stateless if stateless else asyncpg.Connection
    async with asyncpg.create_pool(
        dsn, min_size=1, max_size=pool + stateless, command_timeout=30, init=init, connection_class=kind,
        record_class=asyncpg.Record,
    ) as connections:  # fmt: skip
        database = Database(connections, at_hand=stateless)
        try:
            yield database
        finally:
            await database.give_back()


class _Stateless(asyncpg.Connection):
    def get_reset_query(self) -> str:
        return ""


def _json(text: str) -> object:
    """Most of what is read is empty."""
    return {} if text == "{}" else json.loads(text)


async def _prepare(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=_json, schema="pg_catalog")
