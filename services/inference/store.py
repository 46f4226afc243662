"""What inference asks of storage: the record of generations that ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.inference.providers.contract import Usage


@dataclass(frozen=True, slots=True)
class GenerationRecord:
    """One generation that ended."""

    id: str
    session_id: str
    agent: str
    provider: str
    model: str
    outcome: str
    usage: Usage
    started_at: datetime
    ended_at: datetime
    requested_model: str = ""
    prompt_version: str = ""
    attempts: int = 1


class GenerationStore(Protocol):
    """Where ended generations are written down."""

    async def finish(self, tenant: str, record: GenerationRecord) -> None:
        """Writes the record; a generation's first one stays."""

    async def find(self, tenant: str, generation_id: str) -> GenerationRecord | None:
        """The record, if it ended."""
