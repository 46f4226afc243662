"""The real store: the schema `inference`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from services.inference.providers.contract import Usage
from services.inference.store import GenerationRecord
from shared.batches import TenantBatches
from shared.postgres import REFUSED, Database, load_queries

_SQL = load_queries(Path(__file__).with_name("queries.sql"))
_MOST: Final = 128


class PostgresGenerationStore:
    """One row a generation; those that end while others are being written are written together."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._finished = TenantBatches(self._finish, most=_MOST, faults=REFUSED)

    async def finish(self, tenant: str, record: GenerationRecord) -> None:
        await self._finished.ask(tenant, record)

    async def find(self, tenant: str, generation_id: str) -> GenerationRecord | None:
        found = await self._database.statement(_SQL["find"], tenant, generation_id)
        if not found:
            return None
        (row,) = found
        return GenerationRecord(
            id=row["id"],
            session_id=row["session_id"],
            agent=row["agent_name"],
            provider=row["provider"],
            model=row["model"],
            outcome=row["outcome"],
            usage=Usage(
                input_tokens=row["tokens_input"],
                output_tokens=row["tokens_output"],
                cached_input_tokens=row["tokens_cached_input"],
                reasoning_tokens=row["tokens_reasoning"],
                estimated=row["estimated"],
            ),
            started_at=row["started_at"],
            ended_at=row["ended_at"],
            requested_model=row["requested_model"],
            prompt_version=row["prompt_version"],
            attempts=row["attempts"],
        )

    async def _finish(self, tenant: str, records: Sequence[GenerationRecord]) -> Sequence[None]:
        await self._database.statement(_SQL["finish"], tenant, [_row(tenant, record) for record in records])
        return [None] * len(records)


def _row(tenant: str, record: GenerationRecord) -> Sequence[object]:
    """A row of the table, its columns in their order."""
    usage = record.usage
    return (
        tenant, record.id, record.session_id, record.agent, record.provider, record.model, record.outcome,
        usage.input_tokens, usage.output_tokens, usage.estimated, record.started_at, record.ended_at,
        usage.cached_input_tokens, usage.reasoning_tokens, record.requested_model, record.prompt_version,
        record.attempts,
    )  # fmt: skip
