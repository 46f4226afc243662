"""The real store: the schema `inference`."""

from __future__ import annotations

from pathlib import Path

from services.inference.providers.contract import Usage
from services.inference.store import GenerationRecord
from shared.postgres import Database, load_queries

_SQL = load_queries(Path(__file__).with_name("queries.sql"))


class PostgresGenerationStore:
    """One row a generation."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def finish(self, tenant: str, record: GenerationRecord) -> None:
        usage = record.usage
        async with self._database.tenant(tenant) as connection:
            await connection.execute(
                _SQL["finish"], tenant, record.id, record.session_id, record.agent, record.provider, record.model,
                record.outcome, usage.input_tokens, usage.output_tokens, usage.cached_input_tokens,
                usage.reasoning_tokens, usage.estimated, record.started_at, record.ended_at,
                record.requested_model, record.prompt_version, record.attempts,
            )  # fmt: skip

    async def find(self, tenant: str, generation_id: str) -> GenerationRecord | None:
        async with self._database.tenant(tenant) as connection:
            row = await connection.fetchrow(_SQL["find"], generation_id)
        if row is None:
            return None
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
