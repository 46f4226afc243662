"""A finished turn: in the session's tail, and as an episode for later sessions."""

from __future__ import annotations

from services.memory.conversation import Conversations
from services.memory.remember import NewMemory, Remembering
from services.memory.store import MemoryType, ShortTermTurn

# A longer turn is kept whole in the tail and stored as episodes of this many characters.
_EPISODE = 32_768


class Episodes:
    """Keeps turns. `automatic` False: turns stay in the tail only, whatever the caller asks."""

    def __init__(self, conversations: Conversations, remembering: Remembering, *, automatic: bool) -> None:
        self._conversations = conversations
        self._remembering = remembering
        self._automatic = automatic

    async def append(self, tenant: str, session_id: str, turn: ShortTermTurn, *, remember: bool) -> int:
        """Returns the length of the tail. Raises EmbeddingUnavailable and MemoryFull after the tail was kept; appending
        again is safe.
        """
        held = await self._conversations.append(tenant, session_id, turn)
        if remember and self._automatic and turn.content.strip():
            pieces = [turn.content[at : at + _EPISODE] for at in range(0, len(turn.content), _EPISODE)]
            episodes = [
                NewMemory(piece, MemoryType.EPISODIC, turn.agent, session_id, turn.turn_id)
                for piece in pieces
                if piece.strip()
            ]
            await self._remembering.remember_many(tenant, episodes)
        return held
