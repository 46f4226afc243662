"""What judging asks of inference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class ModelPeer(Protocol):
    """inference, in the mesh's own name."""

    async def embed(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        """Vectors of unit length, one for each text. Raises inference's MeshError."""

    async def rate(self, model: str, question: str, text: str) -> float:
        """How far the model says yes to the question about the text, 0 to 1. Raises inference's MeshError."""
