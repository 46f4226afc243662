"""The rolling history of a session: the newest turns word for word, the older ones as a growing summary."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from services.memory.bounds import Kept
from services.memory.errors import PolicyBlocked
from services.memory.policy import MemoryPolicy
from services.memory.store import TURNS_HELD, Conversation, ConversationStore, Filter, Receipt, Said, ShortTermTurn
from services.memory.summary import summarize
from services.memory.tokens import estimate
from shared.clock import Clock
from shared.errors import MeshError
from shared.ids import Ids

KEEP_TURNS: Final = 8
SUMMARY_TOKENS: Final = 512
_ATTEMPTS: Final = 3
_SLACK: Final = 100


@dataclass(frozen=True, slots=True)
class History:
    """A conversation as it is kept, and about how many tokens it is."""

    conversation: Conversation
    turns: Sequence[ShortTermTurn]

    @property
    def tokens(self) -> int:
        return estimate(self.conversation.summary) + sum(tokens_of(turn) for turn in self.turns)


def tokens_of(turn: ShortTermTurn) -> int:
    """About how many tokens a turn is, its speaker's name included."""
    return estimate(turn.agent) + 1 + estimate(turn.content)


def line(turn: ShortTermTurn) -> str:
    """A turn as a line of a transcript."""
    return f"{turn.agent}: {turn.content.strip()}"


class Conversations:
    """The conversations of all tenants, one tenant a call."""

    def __init__(self, store: ConversationStore, *, policy: MemoryPolicy, clock: Clock, ids: Ids) -> None:
        self._policy = policy
        self._ids = ids
        self._store = store
        self._clock = clock

    async def append(self, tenant: str, said: Sequence[Said]) -> tuple[Mapping[str, int], dict[Said, MeshError]]:
        """Keeps each turn once, as policy lets it be kept; turns beyond TURNS_HELD are folded. How many are held
        by session now, and what policy said of those it refused. Raises PolicyUnavailable.
        """
        kept, refused = [], dict[Said, MeshError]()
        for one in said:
            try:
                content, _ = self._policy.kept(tenant, one.turn.agent, one.turn.content, field="content")
            except PolicyBlocked as refusal:
                refused[one] = refusal
            else:
                kept.append(replace(one, turn=replace(one.turn, content=content)))
        held = await self._store.append_turns(tenant, kept, now=self._clock.now()) if kept else {}
        for session_id in (name for name, turns in held.items() if turns > TURNS_HELD):
            await self.compact(tenant, session_id, keep_turns=TURNS_HELD, max_tokens=SUMMARY_TOKENS)
        return {name: min(turns, TURNS_HELD) for name, turns in held.items()}, refused

    async def tail(
        self, tenant: str, session_id: str, *, limit: int, as_of: datetime | None = None
    ) -> list[ShortTermTurn]:
        """The last turns of then that may be part of a prompt, oldest first."""
        turns = await self._store.tail(tenant, session_id, limit=TURNS_HELD if as_of else limit)
        texts = [(turn, self._policy.told(tenant, turn.agent, turn.content)) for turn in _until(turns, as_of)[-limit:]]
        return [replace(turn, content=text) for turn, text in texts if text is not None]

    async def history(self, tenant: str, session_id: str, *, as_of: datetime | None = None) -> History:
        """Summary and turns, as far as they may be part of a prompt; no summary of what may be later than `as_of`."""
        conversation = await self._store.conversation(tenant, session_id)
        turns = await self.tail(tenant, session_id, limit=TURNS_HELD, as_of=as_of)
        summary = (turns or not as_of) and self._policy.told(tenant, "", conversation.summary)
        return History(replace(conversation, summary=summary or ""), turns)

    async def forget(self, tenant: str, chosen: Filter, *, requested_by: str) -> list[Receipt]:
        """Forgets what was said in a session where all of it is to go: nothing where an agent or tags are named too.
        The proofs: one a turn, and one of the session for its summary.
        """
        if chosen.agent or chosen.tags:
            return []
        turns = await self._all(tenant, chosen.session)
        receipts = await self._receipts(tenant, chosen.session, turns, requested_by)
        if receipts:
            await self._store.forget(tenant, chosen.session, receipts)
        return receipts

    async def forget_silent(self, tenant: str, session_id: str, *, requested_by: str) -> bool:
        """Forgets what was said in a session, unless somebody speaks meanwhile. Whether it is gone."""
        turns = await self._all(tenant, session_id)
        receipts = await self._receipts(tenant, session_id, turns, requested_by)
        return await self._store.forget(tenant, session_id, receipts, newest=turns[-1].turn_id) if turns else True

    async def kept(self, tenant: str) -> Kept:
        """How many there are."""
        return await self._store.kept(tenant)

    async def silent(self, tenant: str, *, before: datetime, limit: int) -> Sequence[str]:
        """Sessions whose last turn is older."""
        return await self._store.silent(tenant, before=before, limit=limit)

    async def surplus(self, tenant: str, *, at_most: int, limit: int) -> Sequence[str]:
        """Sessions beyond so many, the longest silent first."""
        return await self._store.surplus(tenant, at_most=at_most, limit=limit)

    async def _all(self, tenant: str, session_id: str) -> Sequence[ShortTermTurn]:
        return await self._store.tail(tenant, session_id, limit=TURNS_HELD + _SLACK)

    async def _receipts(
        self, tenant: str, session_id: str, turns: Sequence[ShortTermTurn], requested_by: str
    ) -> list[Receipt]:
        known = await self._store.conversation(tenant, session_id)
        said = [(turn.turn_id, turn.content) for turn in turns] + [(session_id, known.summary)] * bool(known.summary)
        now = self._clock.now()
        return [
            Receipt(self._ids.new("rct"), subject, hashlib.sha256(text.encode()).digest(), requested_by, now)
            for subject, text in said
        ]

    async def compact(self, tenant: str, session_id: str, *, keep_turns: int, max_tokens: int) -> int:
        """Folds all turns but the newest into the summary. Returns how many this call folded."""
        for _ in range(_ATTEMPTS):
            known = await self._store.conversation(tenant, session_id)
            turns = await self._all(tenant, session_id)
            older = turns[: max(len(turns) - keep_turns, 0)]
            if not older and estimate(known.summary) <= max_tokens:
                return 0
            if await self._store.fold(tenant, session_id, older, known, _folded(known, older, max_tokens)):
                return len(older)
        return 0


def _until(turns: Sequence[ShortTermTurn], as_of: datetime | None) -> Sequence[ShortTermTurn]:
    return [turn for turn in turns if as_of is None or (turn.created_at and turn.created_at <= as_of)]


def _folded(known: Conversation, older: Sequence[ShortTermTurn], max_tokens: int) -> Conversation:
    texts = [*known.summary.splitlines(), *map(line, older)]
    return Conversation(summarize(texts, max_tokens=max_tokens), known.summarized_turns + len(older))
