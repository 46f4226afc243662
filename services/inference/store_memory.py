"""The honest fake."""

from __future__ import annotations

from services.inference.store import GenerationRecord


class MemoryGenerationStore:
    """Everything is gone when the process ends."""

    def __init__(self) -> None:
        self._records: dict[tuple[str, str], GenerationRecord] = {}

    async def finish(self, tenant: str, record: GenerationRecord) -> None:
        self._records.setdefault((tenant, record.id), record)

    async def find(self, tenant: str, generation_id: str) -> GenerationRecord | None:
        return self._records.get((tenant, generation_id))
