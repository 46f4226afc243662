"""The engine "retrieval": answers with what memory knows, word for word, each with its id; it never makes anything up.

Its config: {"limit": 3, "min_score": 0.3, "otherwise": "I do not know."}.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from services.orchestrator.reasoning.engines.contract import Generated, Question, text


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=3, ge=1, le=20)
    min_score: float = Field(default=0.0, ge=0, le=1)
    otherwise: str = Field(default="Nothing is known about that.", min_length=1, max_length=32_768)


class Retrieval:
    """Quotes the agent's memory."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Raises ValueError when the config is wrong."""
        self._config = _Config.model_validate(config)

    async def generate(self, question: Question) -> AsyncGenerator[Generated, None]:
        known = await question.recall(question.asked)
        fitting = [found for found in known if found.score >= self._config.min_score][: self._config.limit]
        if not fitting:
            yield text(self._config.otherwise)
        for place, found in enumerate(fitting):
            yield text(f"{'' if place == 0 else chr(10)}{found.content} [{found.id}]")
