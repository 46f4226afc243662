"""A finished turn: in the session's tail, and as an episode for later sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.memory.conversation import Conversations
from services.memory.errors import PolicyBlocked
from services.memory.remember import NewMemory, Remembering
from services.memory.store import MemoryType, Said
from shared.errors import MeshError

# A longer turn is kept whole in the tail and stored as episodes of this many characters.
_EPISODE = 32_768


class Episodes:
    """Keeps turns. `automatic` False: turns stay in the tail only, whatever the caller asks."""

    def __init__(self, conversations: Conversations, remembering: Remembering, *, automatic: bool) -> None:
        self._conversations = conversations
        self._remembering = remembering
        self._automatic = automatic

    async def append(self, tenant: str, said: Said) -> int:
        """Returns the length of the tail. Raises EmbeddingUnavailable and MemoryFull after the tail was kept; appending
        again is safe.
        """
        held, refused = await self.append_many(tenant, [said])
        for refusal in refused.values():
            raise refusal
        return held[said.session_id]

    async def append_many(self, tenant: str, said: Sequence[Said]) -> tuple[Mapping[str, int], dict[Said, MeshError]]:
        """The lengths of the tails by session, and why turns were refused. Raises as `append`, refusals aside."""
        held, refused = await self._conversations.append(tenant, said)
        kept = [one for one in said if self._automatic and one.remember and one not in refused]
        try:
            await self._remember(tenant, kept)
        except PolicyBlocked:
            for one in kept:
                try:
                    await self._remember(tenant, [one])
                except PolicyBlocked as refusal:
                    refused[one] = refusal
        return held, refused

    async def _remember(self, tenant: str, said: Sequence[Said]) -> None:
        episodes = [
            NewMemory(piece, MemoryType.EPISODIC, one.turn.agent, one.session_id, one.turn.turn_id)
            for one in said
            for at in range(0, len(one.turn.content), _EPISODE)
            if (piece := one.turn.content[at : at + _EPISODE]).strip()
        ]
        if episodes:
            await self._remembering.remember_many(tenant, episodes)
