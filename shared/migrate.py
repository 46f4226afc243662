"""Brings every service's schema up to date: numbered SQL files, applied once each, in order, under one lock."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from shared.settings import SERVICES

_ROOT = Path(__file__).resolve().parent.parent
_SQL = Path(__file__).with_name("migrate.sql")
_LOCK = 7_316_215  # any number, the same for all who migrate
_VARIABLE = "AGENTNET_MIGRATE_DSN"


class MigrationChanged(Exception):
    """A migration that was applied has other text now. Write a new one instead."""


@dataclass(frozen=True, slots=True)
class Migration:
    schema: str
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations(root: Path = _ROOT) -> list[Migration]:
    """All migrations of all services, in the order they are applied."""
    return [
        Migration(schema=service, name=path.name, sql=path.read_text())
        for service in SERVICES
        for path in sorted((root / "services" / service / "migrations").glob("[0-9][0-9][0-9][0-9]_*.sql"))
    ]


async def migrate(dsn: str, wanted: list[Migration]) -> list[Migration]:
    """Applies what is missing as the owner role, each in a transaction of its own, and returns that.

    Raises MigrationChanged when an applied migration's text differs from the file.
    """
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("select pg_advisory_lock($1)", _LOCK)
        await connection.execute(_SQL.read_text())
        rows = await connection.fetch("select schema_name, name, checksum from public.schema_migration")
        applied = {(row["schema_name"], row["name"]): row["checksum"] for row in rows}
        return [migration for migration in wanted if await _apply(connection, migration, applied)]
    finally:
        await connection.close()


async def _apply(
    connection: asyncpg.Connection[asyncpg.Record], migration: Migration, applied: dict[tuple[str, str], str]
) -> bool:
    checksum = applied.get((migration.schema, migration.name))
    if checksum == migration.checksum:
        return False
    if checksum is not None:
        raise MigrationChanged(f"{migration.schema}/{migration.name} was applied with other text; add a new migration")
    async with connection.transaction():
        await connection.execute("select set_config('search_path', $1, true)", f"{migration.schema},public")
        await connection.execute(migration.sql)
        await connection.execute(
            "insert into public.schema_migration (schema_name, name, checksum) values ($1, $2, $3)",
            migration.schema, migration.name, migration.checksum,
        )  # fmt: skip
    return True


def main() -> None:
    """Reads the owner's DSN from AGENTNET_MIGRATE_DSN."""
    dsn = os.environ.get(_VARIABLE)
    if not dsn:
        sys.exit(f"set {_VARIABLE} to the DSN of the role that owns the schemas")
    try:
        done = asyncio.run(migrate(dsn, migrations()))
    except (MigrationChanged, asyncpg.PostgresError, OSError) as error:
        sys.exit(f"migration failed: {error}")
    sys.stdout.write(f"applied {len(done)} migrations\n")


if __name__ == "__main__":
    main()
