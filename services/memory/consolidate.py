"""The episodes of a session as one memory that lasts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from services.memory.errors import EmbeddingUnavailable, MemoryExists, MemoryNotFound, PolicyBlocked
from services.memory.remember import Change, NewMemory, Remembering
from services.memory.store import Filter, Memory, MemoryType
from services.memory.summary import summarize, without
from shared.paging import Page

_EPISODES: Final = 500
_IMPORTANCE: Final = 0.7
TAG: Final = "consolidated"


@dataclass(frozen=True, slots=True)
class Consolidated:
    """The summary, or none, and how many episodes it stands for."""

    memory: Memory | None
    episodes: int


class Consolidation:
    """Makes LONG_TERM memories of episodes. The episodes stay: retention decides when they go."""

    def __init__(self, remembering: Remembering) -> None:
        self._remembering = remembering

    async def consolidate(self, tenant: str, session_id: str, *, agent: str, max_tokens: int) -> Consolidated:
        """The same episodes give the same summary, which is stored once; with new ones it takes the old one's place.

        Raises EmbeddingUnavailable and MemoryFull.
        """
        chosen = Filter(types=(MemoryType.EPISODIC,), session=session_id)
        newest = await self._remembering.every(tenant, chosen, newest_first=True, page=Page(_EPISODES))
        episodes = newest[:_EPISODES][::-1]
        if not episodes:
            return Consolidated(None, 0)
        text = summarize([_line(episode) for episode in episodes], max_tokens=max_tokens)
        stored, created = await self._remembering.remember(tenant, _summary(session_id, agent, text, episodes))
        if created:
            await self._forget_older(tenant, session_id, stored)
        return Consolidated(stored, len(episodes))

    async def without(self, tenant: str, going: Sequence[Memory], *, requested_by: str) -> None:
        """Takes what episodes said out of the summaries of their sessions. A summary of nothing else is forgotten too,
        and so is one that cannot be embedded now.
        """
        said = defaultdict[str, list[str]](list)
        for one in going:
            if one.session_id and one.memory_type is MemoryType.EPISODIC:
                said[one.session_id].append(_line(one))
        ids = {one.id for one in going}
        for session_id, lines in said.items():
            for known in await self._summaries(tenant, session_id):
                left = without(known.content, lines)
                if left != known.content and known.id not in ids:
                    await self._shorten(tenant, known, left, requested_by)

    async def _shorten(self, tenant: str, known: Memory, left: str, requested_by: str) -> None:
        # Whoever deleted it meanwhile did what is wanted.
        with suppress(MemoryNotFound):
            with suppress(EmbeddingUnavailable, MemoryExists, PolicyBlocked):
                if left:
                    await self._remembering.update(tenant, known.id, Change(content=left))
                    return
            await self._remembering.forget(tenant, known, requested_by=requested_by)

    async def _forget_older(self, tenant: str, session_id: str, stored: Memory) -> None:
        for known in await self._summaries(tenant, session_id):
            if known.id != stored.id and known.agent == stored.agent:
                await self._remembering.forget(tenant, known, requested_by="consolidation")

    async def _summaries(self, tenant: str, session_id: str) -> Sequence[Memory]:
        chosen = Filter(types=(MemoryType.LONG_TERM,), session=session_id, tags=(TAG,))
        return await self._remembering.every(tenant, chosen, newest_first=True, page=Page(_EPISODES))


def _summary(session_id: str, agent: str, text: str, episodes: Sequence[Memory]) -> NewMemory:
    return NewMemory(
        content=text,
        memory_type=MemoryType.LONG_TERM,
        agent=agent,
        session_id=session_id,
        tags=(TAG,),
        metadata={"episodes": len(episodes), "first": episodes[0].id, "last": episodes[-1].id},
        importance=max(_IMPORTANCE, *(episode.importance for episode in episodes)),
        policy_version=episodes[-1].policy_version,
    )


def _line(episode: Memory) -> str:
    return f"{episode.agent}: {episode.content}" if episode.agent else episode.content
