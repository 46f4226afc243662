"""Named sets of embedded texts: how near does a text come to what is restricted, or to what is expected?"""

from __future__ import annotations

from collections.abc import Sequence

from services.memory.embed import Embedder
from services.memory.errors import EmbeddingSetNotFound
from services.memory.forgetting import Forgetting
from services.memory.remember import NewMemory, Remembering
from services.memory.store import Filter, Found, MemoryStore, MemoryType
from shared.clock import Clock


class EmbeddingSets:
    """The sets of all tenants, one tenant a call."""

    def __init__(
        self, store: MemoryStore, remembering: Remembering, forgetting: Forgetting, *, embedder: Embedder, clock: Clock
    ) -> None:
        self._forgetting = forgetting
        self._store = store
        self._remembering = remembering
        self._embedder = embedder
        self._clock = clock

    async def add(self, tenant: str, name: str, texts: Sequence[str]) -> int:
        """How many were new. Raises EmbeddingUnavailable and MemoryFull."""
        many = [NewMemory(text, MemoryType.SEMANTIC, embedding_set=name) for text in texts]
        return sum(created for _, created in await self._remembering.remember_many(tenant, many))

    async def nearest(self, tenant: str, name: str, text: str, *, limit: int) -> Sequence[Found]:
        """The nearest texts of the set, at least one. Raises EmbeddingSetNotFound and EmbeddingUnavailable."""
        ((vector, _),) = await self._embedder.embed([text])
        chosen = Filter(embedding_set=name)
        model = self._embedder.model
        found = await self._store.nearest(tenant, vector, chosen, now=self._clock.now(), limit=limit, model=model)
        if not found:
            raise _missing(name)
        return found

    async def delete(self, tenant: str, name: str, *, requested_by: str) -> int:
        """How many texts were deleted. Raises EmbeddingSetNotFound."""
        gone, more = 0, True
        while more:
            chosen = Filter(embedding_set=name)
            receipts, more = await self._forgetting.forget_many(tenant, chosen, requested_by=requested_by)
            gone += len(receipts)
        if not gone:
            raise _missing(name)
        return gone


def _missing(name: str) -> EmbeddingSetNotFound:
    return EmbeddingSetNotFound(f"no embedding set {name}", embedding_set=name)
