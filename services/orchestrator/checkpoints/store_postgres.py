"""Checkpoints in Postgres, schema `orchestrator`: what is queried stands in columns, the whole in `data`."""

from __future__ import annotations

from collections.abc import Sequence

from services.orchestrator.checkpoints.store import CheckpointFilter, Data
from services.orchestrator.store_postgres import SQL
from shared.paging import Page
from shared.postgres import Database


class PostgresCheckpointStore:
    """One row a checkpoint."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def save(self, tenant: str, checkpoint_id: str, data: Data) -> None:
        async with self._database.tenant(tenant) as connection:
            await connection.execute(
                SQL["save_checkpoint"], tenant, checkpoint_id, data["agent_name"], data["run_id"], data["version"], data
            )

    async def load(self, tenant: str, checkpoint_id: str) -> Data | None:
        async with self._database.tenant(tenant) as connection:
            data: Data | None = await connection.fetchval(SQL["load_checkpoint"], checkpoint_id)
        return data

    async def every(self, tenant: str, chosen: CheckpointFilter, *, page: Page) -> Sequence[Data]:
        before = page.row
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(
                SQL["every_checkpoint"], chosen.agent_name, chosen.run_id, before, page.size + 1
            )
        return [row["data"] for row in rows]

    async def delete(self, tenant: str, checkpoint_id: str) -> bool:
        async with self._database.tenant(tenant) as connection:
            return await connection.fetchval(SQL["delete_checkpoint"], checkpoint_id) is not None
