"""The short-term memory of sessions in the schema `memory`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from services.memory.bounds import Kept
from services.memory.receipts_postgres import add_receipts
from services.memory.store import Conversation, Receipt, Said, ShortTermTurn
from shared.postgres import Database, load_queries

_SQL = load_queries(Path(__file__).with_name("queries.sql"))


class PostgresConversationStore:
    """Turns by place, and one row of summary a session."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append_turns(self, tenant: str, said: Sequence[Said], *, now: datetime) -> Mapping[str, int]:
        rows = [(one.session_id, one.turn.turn_id, one.turn.agent, one.turn.content) for one in said]
        sessions = list({one.session_id for one in said})
        async with self._database.tenant(tenant) as connection:
            await connection.execute(_SQL["append_turns"], tenant, now, *map(list, zip(*rows, strict=True)))
            held = await connection.fetch(_SQL["count_turns"], tenant, sessions)
        return {row["session_id"]: row["turns"] for row in held}

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
