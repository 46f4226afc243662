"""The short-term memory of sessions in the schema `memory`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from services.memory.bounds import Kept
from services.memory.receipts_postgres import add_receipts
from services.memory.store import Conversation, Receipt, ShortTermTurn
from shared.postgres import Database, load_queries

_SQL = load_queries(Path(__file__).with_name("queries.sql"))


class PostgresConversationStore:
    """Turns by place, and one row of summary a session."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append_turn(self, tenant: str, session_id: str, turn: ShortTermTurn, *, now: datetime) -> int:
        async with self._database.tenant(tenant) as connection:
            await connection.execute(
                _SQL["append_turn"], tenant, session_id, turn.turn_id, turn.agent, turn.content, now
            )
            held: int = await connection.fetchval(_SQL["count_turns"], tenant, session_id)
        return held

    async def tail(self, tenant: str, session_id: str, *, limit: int) -> Sequence[ShortTermTurn]:
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(_SQL["tail"], tenant, session_id, limit)
        return [ShortTermTurn(**row) for row in rows]

    async def conversation(self, tenant: str, session_id: str) -> Conversation:
        async with self._database.tenant(tenant) as connection:
            row = await connection.fetchrow(_SQL["conversation"], tenant, session_id)
        return Conversation(**row) if row else Conversation()

    async def fold(
        self, tenant: str, session_id: str, turns: Sequence[ShortTermTurn], known: Conversation, folded: Conversation
    ) -> bool:
        async with self._database.tenant(tenant) as connection:
            done = await connection.fetchval(
                _SQL["fold"], tenant, session_id, folded.summary, folded.summarized_turns, known.summarized_turns
            )
            if done is not None:
                await connection.execute(_SQL["delete_turns"], tenant, session_id, [turn.turn_id for turn in turns])
        return done is not None

    async def forget(
        self, tenant: str, session_id: str, receipts: Sequence[Receipt], *, newest: str | None = None
    ) -> bool:
        async with self._database.tenant(tenant) as connection:
            if newest is not None and await connection.fetchval(_SQL["newest_turn"], tenant, session_id) != newest:
                return False
            await connection.execute(_SQL["forget_conversation"], tenant, session_id)
            await add_receipts(connection, tenant, receipts)
        return True

    async def kept(self, tenant: str) -> Kept:
        async with self._database.tenant(tenant) as connection:
            (row,) = await connection.fetch(_SQL["count_conversations"], tenant)
        return Kept(**row)

    async def silent(self, tenant: str, *, before: datetime, limit: int) -> Sequence[str]:
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(_SQL["silent_conversations"], tenant, before, limit)
        return [row["session_id"] for row in rows]

    async def surplus(self, tenant: str, *, at_most: int, limit: int) -> Sequence[str]:
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(_SQL["surplus_conversations"], tenant, at_most, limit)
        return [row["session_id"] for row in rows]
