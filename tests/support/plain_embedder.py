"""The embedded embedding model by itself: one caller after the other, without batching or cache."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from services.inference.embeddings.contract import Computed, Embedded, Tokenised
from services.inference.embeddings.device import Device
from services.inference.embeddings.late import MODEL
from services.inference.embeddings.minilm import MiniLM

__all__ = ("MODEL", "Embedded", "EmbeddedEmbedder")

_BATCH: Final = 32


class EmbeddedEmbedder:
    """Runs in a thread of its own; the loop never waits for arithmetic."""

    def __init__(self, device: Device = Device.AUTO) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embed")
        self._model = MiniLM(device)

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """One vector a text."""
        loop = asyncio.get_running_loop()
        made: list[Computed] = []
        read: list[Tokenised] = []
        for start in range(0, len(texts), _BATCH):
            part, tokenised = await loop.run_in_executor(self._pool, self._run, texts[start : start + _BATCH])
            made += part
            read += tokenised
        cut = tuple(place for place, text in enumerate(read) if text.cut)
        vectors, token_vectors = (tuple(one.vector for one in made), tuple(one.token_vectors for one in made))
        return Embedded(vectors, sum(len(text.ids) for text in read), len(cut), cut, token_vectors)

    def close(self) -> None:
        self._pool.shutdown(wait=True)

    def _run(self, texts: Sequence[str]) -> tuple[list[Computed], list[Tokenised]]:
        tokenised = self._model.tokenise(texts)
        return self._model.vectors([text.ids for text in tokenised]), tokenised
