"""The bounds in the schema `memory`, in one table with those of memories."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from services.memory.bounds import Bounds, Kind
from shared.postgres import Database, load_queries

_SQL = load_queries(Path(__file__).with_name("queries.sql"))


class PostgresBounds:
    """One row a tenant and kind."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def bounds(self, tenant: str) -> Mapping[Kind, Bounds]:
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(_SQL["bounds"], tenant, list(Kind))
        return {Kind(row["kind"]): Bounds(row["at_most"], row["days"]) for row in rows}

    async def set_bounds(self, tenant: str, kind: Kind, bounds: Bounds) -> None:
        async with self._database.tenant(tenant) as connection:
            await connection.execute(_SQL["set_retention"], tenant, kind.value, bounds.at_most, bounds.days)
