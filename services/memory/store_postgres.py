"""The real store: the schema `memory`, with pgvector."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from services.memory.store import TURNS_HELD, Filter, Memory, MemoryType, Scored, ShortTermTurn, Vector
from shared.errors import InvalidArgument
from shared.paging import Page
from shared.postgres import Database, load_queries

_SQL = load_queries(Path(__file__).with_name("queries.sql"))
_WIDTHS: Final = (384, 1536)


class PostgresMemoryStore:
    """One table a width of embedding."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, tenant: str, memory: Memory, vector: Vector) -> Memory:
        query = _SQL[f"add_{_width(vector)}"]
        async with self._database.tenant(tenant) as connection:
            added = await connection.fetchval(
                query, tenant, memory.id, memory.agent, list(vector), memory.content, memory.content_hash,
                memory.memory_type.value, memory.session_id, memory.turn_id, list(memory.tags), dict(memory.metadata),
                memory.importance, memory.created_at, memory.expires_at,
            )  # fmt: skip
            if added:
                return memory
            same = (memory.agent, memory.memory_type.value, memory.content_hash)
            (row,) = await connection.fetch(_SQL["same"], *same)
        return _memory(row)

    async def find(self, tenant: str, memory_id: str, *, now: datetime) -> Memory | None:
        async with self._database.tenant(tenant) as connection:
            row = await connection.fetchrow(_SQL["find"], memory_id, now)
        return _memory(row) if row else None

    async def forget(self, tenant: str, memory_id: str) -> bool:
        async with self._database.tenant(tenant) as connection:
            return await connection.fetchval(_SQL["forget"], memory_id) is not None

    async def every(
        self, tenant: str, chosen: Filter, *, now: datetime, newest_first: bool, page: Page
    ) -> Sequence[Memory]:
        seen: tuple[datetime | None, str] = (None, "")
        if page.cursor:
            seen = (datetime.fromisoformat(page.cursor[0]), page.cursor[1])
        types = [kind.value for kind in chosen.types]
        query = _SQL["newest" if newest_first else "oldest"]
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(query, now, chosen.agent, types, list(chosen.tags), *seen, page.size + 1)
        return [_memory(row) for row in rows]

    async def nearest(
        self, tenant: str, vector: Vector, chosen: Filter, *, now: datetime, min_score: float, limit: int
    ) -> Sequence[Scored]:
        types = [kind.value for kind in chosen.types]
        async with self._database.tenant(tenant) as connection:
            # Without an iterative scan a filter can leave nothing of what the index found.
            await connection.execute(_SQL["search_settings"])
            rows = await connection.fetch(
                _SQL[f"nearest_{_width(vector)}"], list(vector), now, chosen.agent, types, list(chosen.tags),
                chosen.start,
                chosen.end, chosen.not_session, limit,
            )  # fmt: skip
        return [Scored(_memory(row), row["score"]) for row in rows if row["score"] >= min_score]

    async def append_turn(self, tenant: str, session_id: str, turn: ShortTermTurn, *, now: datetime) -> int:
        async with self._database.tenant(tenant) as connection:
            await connection.execute(
                _SQL["append_turn"], tenant, session_id, turn.turn_id, turn.agent, turn.content, now
            )
            await connection.execute(_SQL["trim_turns"], session_id, TURNS_HELD)
            held: int = await connection.fetchval(_SQL["count_turns"], session_id)
        return held

    async def tail(self, tenant: str, session_id: str, *, limit: int) -> Sequence[ShortTermTurn]:
        async with self._database.tenant(tenant) as connection:
            return [ShortTermTurn(**row) for row in await connection.fetch(_SQL["tail"], session_id, limit)]


def _width(vector: Vector) -> int:
    if len(vector) not in _WIDTHS:
        raise InvalidArgument(f"no table for embeddings {len(vector)} wide; there are {_WIDTHS}", field="embedding")
    return len(vector)


def _memory(row: Any) -> Memory:
    return Memory(
        id=row["id"],
        content=row["content"],
        content_hash=row["content_hash"],
        memory_type=MemoryType(row["memory_type"]),
        agent=row["agent_name"],
        session_id=row["session_id"],
        turn_id=row["turn_id"],
        tags=tuple(row["tags"]),
        metadata=row["metadata"],
        importance=row["importance"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
    )
