"""Asks a remote embedding model again when its failure passes, within a patience and never sooner than it asks for."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from services.inference.embeddings.contract import Embedded, Embedder
from services.inference.errors import ProviderRateLimited, ProviderUnavailable, StreamBroken
from shared.log import log

Sleep = Callable[[float], Awaitable[None]]
# A time-out is not tried again: its caller has waited long enough, and the provider may still be computing.
_PASSING: Final = (ProviderRateLimited, ProviderUnavailable, StreamBroken)


@dataclass(frozen=True, slots=True)
class Patience:
    """How often and how long."""

    attempts: int = 4
    first_pause: timedelta = timedelta(milliseconds=250)
    longest_pause: timedelta = timedelta(seconds=8)  # who asks for more than this is answered with the failure


class RetryingEmbedder:
    """Embedding has no side effects, so asking again is safe."""

    def __init__(self, embedder: Embedder, patience: Patience, *, sleep: Sleep = asyncio.sleep) -> None:
        self._embedder = embedder
        self._patience = patience
        self._sleep = sleep

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """One vector a text. Raises the last failure."""
        for attempt in range(1, self._patience.attempts):
            try:
                return await self._embedder.embed(texts)
            except _PASSING as error:
                pause = self._pause(attempt, error.retry_after)
                if pause is None:
                    raise
                log.info("embedding.again", reason=error.reason_name, attempt=attempt, seconds=round(pause, 3))
                await self._sleep(pause)
        return await self._embedder.embed(texts)

    def _pause(self, attempt: int, asked: timedelta | None) -> float | None:
        """Seconds until the next attempt, jittered and growing; None when more is asked for than there is patience."""
        longest = self._patience.longest_pause
        if asked and asked > longest:
            return None
        drawn: float = min(longest, self._patience.first_pause * 2 ** (attempt - 1)).total_seconds()
        least = asked.total_seconds() if asked else 0.0
        return max(least, drawn * random.uniform(0.5, 1))  # noqa: S311 - no secret
