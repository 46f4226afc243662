"""The honest fake of the short-term memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from services.memory.bounds import Kept
from services.memory.receipts_memory import InMemoryReceipts
from services.memory.store import NEVER, Conversation, Receipt, Said, ShortTermTurn


class InMemoryConversations:
    """Everything is gone when the process ends."""

    def __init__(self, receipts: InMemoryReceipts | None = None) -> None:
        self.receipts = receipts or InMemoryReceipts()
        self._turns: dict[tuple[str, str], list[ShortTermTurn]] = {}
        self._folded: dict[tuple[str, str], Conversation] = {}

    async def append_turns(self, tenant: str, said: Sequence[Said], *, now: datetime) -> Mapping[str, int]:
        for one in said:
            held = self._turns.setdefault((tenant, one.session_id), [])
            if all(known.turn_id != one.turn.turn_id for known in held):
                held.append(replace(one.turn, created_at=now))
        return {one.session_id: len(self._turns[tenant, one.session_id]) for one in said}

    async def tail(self, tenant: str, session_id: str, *, limit: int) -> Sequence[ShortTermTurn]:
        return self._turns.get((tenant, session_id), [])[-limit:]

    async def conversation(self, tenant: str, session_id: str) -> Conversation:
        return self._folded.get((tenant, session_id), Conversation())

    async def fold(
        self, tenant: str, session_id: str, turns: Sequence[ShortTermTurn], known: Conversation, folded: Conversation
    ) -> bool:
        if await self.conversation(tenant, session_id) != known:
            return False
        self._folded[tenant, session_id] = folded
        gone = {turn.turn_id for turn in turns}
        held = self._turns.get((tenant, session_id), [])
        self._turns[tenant, session_id] = [turn for turn in held if turn.turn_id not in gone]
        return True

    async def forget(
        self, tenant: str, session_id: str, receipts: Sequence[Receipt], *, newest: str | None = None
    ) -> bool:
        if newest is not None and [turn.turn_id for turn in await self.tail(tenant, session_id, limit=1)] != [newest]:
            return False
        self._turns.pop((tenant, session_id), None)
        self._folded.pop((tenant, session_id), None)
        self.receipts.add(tenant, receipts)
        return True

    async def kept(self, tenant: str) -> Kept:
        times = [turn.created_at for turns in self._of(tenant).values() for turn in turns if turn.created_at]
        return Kept(len(self._of(tenant)), min(times, default=None))

    async def silent(self, tenant: str, *, before: datetime, limit: int) -> Sequence[str]:
        last = {session: turns[-1].created_at for session, turns in self._of(tenant).items()}
        return [session for session, at in last.items() if at and at < before][:limit]

    async def surplus(self, tenant: str, *, at_most: int, limit: int) -> Sequence[str]:
        mine = self._of(tenant)
        oldest = sorted(mine, key=lambda session: mine[session][-1].created_at or NEVER)
        return oldest[: max(len(oldest) - at_most, 0)][:limit]

    def _of(self, tenant: str) -> dict[str, list[ShortTermTurn]]:
        return {session: turns for (whose, session), turns in self._turns.items() if whose == tenant and turns}
