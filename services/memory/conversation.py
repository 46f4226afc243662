"""The rolling history of a session: the newest turns word for word, the older ones as a growing summary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from services.memory.store import TURNS_HELD, Conversation, ConversationStore, ShortTermTurn
from services.memory.summary import summarize
from services.memory.tokens import estimate
from shared.clock import Clock

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

    def __init__(self, store: ConversationStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def append(self, tenant: str, session_id: str, turn: ShortTermTurn) -> int:
        """Keeps a turn once; turns beyond TURNS_HELD are folded. Returns how many are held."""
        held = await self._store.append_turn(tenant, session_id, turn, now=self._clock.now())
        if held > TURNS_HELD:
            await self.compact(tenant, session_id, keep_turns=TURNS_HELD, max_tokens=SUMMARY_TOKENS)
        return min(held, TURNS_HELD)

    async def tail(self, tenant: str, session_id: str, *, limit: int) -> Sequence[ShortTermTurn]:
        """The last turns, oldest first."""
        return await self._store.tail(tenant, session_id, limit=limit)

    async def history(self, tenant: str, session_id: str) -> History:
        """Summary and turns."""
        conversation = await self._store.conversation(tenant, session_id)
        return History(conversation, await self._store.tail(tenant, session_id, limit=TURNS_HELD))

    async def compact(self, tenant: str, session_id: str, *, keep_turns: int, max_tokens: int) -> int:
        """Folds all turns but the newest into the summary. Returns how many this call folded."""
        for _ in range(_ATTEMPTS):
            known = await self._store.conversation(tenant, session_id)
            turns = await self._store.tail(tenant, session_id, limit=TURNS_HELD + _SLACK)
            older = turns[: max(len(turns) - keep_turns, 0)]
            if not older:
                return 0
            if await self._store.fold(tenant, session_id, older, known, _folded(known, older, max_tokens)):
                return len(older)
        return 0


def _folded(known: Conversation, older: Sequence[ShortTermTurn], max_tokens: int) -> Conversation:
    texts = [*known.summary.splitlines(), *map(line, older)]
    return Conversation(summarize(texts, max_tokens=max_tokens), known.summarized_turns + len(older))
