"""What an engine must do, and the store that keeps everything else in this process beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Protocol, TypeVar

from services.memory.store import NEVER, Entry, Filter, Found, Memory, Receipt, Vector
from services.memory.store_memory import InMemoryStore, check_widths, comparable

T = TypeVar("T")


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
    engine's own files ends with the process. An engine works in a thread, one call at a time.
    """

    def __init__(self, engine: VectorEngine) -> None:
        super().__init__()
        self._engine = engine
        self._turn = asyncio.Lock()

    async def add(self, tenant: str, entries: Sequence[Entry], *, now: datetime = NEVER) -> Sequence[Memory]:
        known = dict(self._tenants.get(tenant, {}))
        stored = await super().add(tenant, entries, now=now)
        fresh = {memory.id for memory in stored} - known.keys()
        mine = self._tenants[tenant]
        await self._removed(tenant, [one for key, one in known.items() if key not in mine])
        vectors = [(mine[one].memory.place, mine[one].vector) for one in sorted(fresh)]
        await self._in_turn(self._engine.put, tenant, vectors)
        return stored

    async def change(self, tenant: str, entry: Entry, *, before: Memory) -> Memory | None:
        known = dict(self._tenants.get(tenant, {}))
        changed = await super().change(tenant, entry, before=before)
        if changed:
            mine = self._tenants[tenant]
            await self._removed(tenant, [one for key, one in known.items() if key == before.id or key not in mine])
            vector = mine[changed.id].vector
            await self._in_turn(self._engine.put, tenant, [(changed.place, vector)])
        return changed

    async def revector(self, tenant: str, entries: Sequence[Entry]) -> int:
        mine = self._tenants.get(tenant, {})
        old = {entry.memory.id: mine[entry.memory.id] for entry in entries if entry.memory.id in mine}
        done = await super().revector(tenant, entries)
        renewed = [(one, mine[key]) for key, one in old.items() if mine[key] is not one]
        for before, after in renewed:
            await self._in_turn(self._engine.remove, tenant, [before.memory.place], len(before.vector))
            await self._in_turn(self._engine.put, tenant, [(after.memory.place, after.vector)])
        return done

    async def forget(self, tenant: str, memories: Sequence[Memory], receipts: Sequence[Receipt]) -> Collection[str]:
        known = dict(self._tenants.get(tenant, {}))
        gone = await super().forget(tenant, memories, receipts)
        await self._removed(tenant, [known[one] for one in gone])
        return gone

    async def nearest(
        self, tenant: str, vector: Vector, chosen: Filter, *, now: datetime, limit: int, model: str = ""
    ) -> Sequence[Found]:
        check_widths([vector])
        mine = {
            one.memory.place: one.memory for one in self._mine(tenant, chosen, now) if comparable(one, vector, model)
        }
        if not mine:
            return []
        found = await self._in_turn(
            partial(self._engine.nearest, tenant, vector, mine.keys(), limit=min(limit, len(mine)))
        )
        return [Found(mine[place], cosine) for place, cosine in found]

    async def _removed(self, tenant: str, going: Sequence[Entry]) -> None:
        for width in {len(one.vector) for one in going}:
            places = [one.memory.place for one in going if len(one.vector) == width]
            await self._in_turn(self._engine.remove, tenant, places, width)

    async def _in_turn(self, work: Callable[..., T], *given: Any) -> T:
        async with self._turn:
            return await asyncio.to_thread(work, *given)
