"""What an engine must do, and the store that keeps everything else in this process beside it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Protocol

from services.memory.store import Entry, Filter, Found, Memory, Receipt, Vector
from services.memory.store_memory import InMemoryStore, check_widths


class VectorEngine(Protocol):
    """Vectors by tenant and place. Tenants never share a collection."""

    def put(self, tenant: str, vectors: Sequence[tuple[int, Vector]]) -> None:
        """Adds vectors of one width, or replaces those at the same places."""

    def remove(self, tenant: str, places: Sequence[int], width: int) -> None:
        """Deletes for good. Places that are not there are no error."""

    def nearest(
        self, tenant: str, vector: Vector, among: Collection[int], *, limit: int
    ) -> Sequence[tuple[int, float]]:
        """The places of the nearest among these, with their cosine similarity, best first."""


class EngineStore(InMemoryStore):
    """Memories and words in this process, vectors in an engine: for one process without Postgres. Everything but the
    engine's own files ends with the process.
    """

    def __init__(self, engine: VectorEngine) -> None:
        super().__init__()
        self._engine = engine

    async def add(self, tenant: str, entries: Sequence[Entry]) -> Sequence[Memory]:
        known = set(self._tenants.get(tenant, {}))
        stored = await super().add(tenant, entries)
        fresh = {memory.id for memory in stored} - known
        mine = self._tenants[tenant]
        self._engine.put(tenant, [(mine[one].memory.place, mine[one].vector) for one in sorted(fresh)])
        return stored

    async def change(self, tenant: str, entry: Entry, *, before: Memory) -> Memory | None:
        old = self._tenants.get(tenant, {}).get(before.id)
        changed = await super().change(tenant, entry, before=before)
        if changed and old:
            self._engine.remove(tenant, [before.place], len(old.vector))
            self._engine.put(tenant, [(changed.place, self._tenants[tenant][changed.id].vector)])
        return changed

    async def forget(self, tenant: str, memories: Sequence[Memory], receipts: Sequence[Receipt]) -> int:
        mine = self._tenants.get(tenant, {})
        going = [mine[memory.id] for memory in memories if memory.id in mine]
        gone = await super().forget(tenant, memories, receipts)
        for width in {len(one.vector) for one in going}:
            self._engine.remove(tenant, [one.memory.place for one in going if len(one.vector) == width], width)
        return gone

    async def nearest(
        self, tenant: str, vector: Vector, chosen: Filter, *, now: datetime, limit: int
    ) -> Sequence[Found]:
        check_widths([vector])
        mine = {
            one.memory.place: one.memory for one in self._mine(tenant, chosen, now) if len(one.vector) == len(vector)
        }
        if not mine:
            return []
        found = self._engine.nearest(tenant, vector, mine.keys(), limit=min(limit, len(mine)))
        return [Found(mine[place], cosine) for place, cosine in found]
