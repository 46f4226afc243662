"""Asks a remote embedding model again when its failure passes, within a patience and never sooner than it asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from services.inference.embeddings.contract import Embedded, Embedder
from services.inference.errors import ProviderOverloaded, ProviderRateLimited, ProviderUnavailable, StreamBroken
from shared.retry import Patience, with_retry

Sleep = Callable[[float], Awaitable[None]]
# A time-out is not tried again: its caller has waited long enough, and the provider may still be computing.
_PASSING: Final = (ProviderRateLimited, ProviderOverloaded, ProviderUnavailable, StreamBroken)

__all__ = ["Patience", "RetryingEmbedder"]


class RetryingEmbedder:
    """Embedding has no side effects, so asking again is safe."""

    def __init__(self, embedder: Embedder, patience: Patience, *, sleep: Sleep = asyncio.sleep) -> None:
        self._embed = with_retry(*_PASSING, patience=patience, sleep=sleep)(embedder.embed)

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """One vector a text. Raises the last failure."""
        return await self._embed(texts)
