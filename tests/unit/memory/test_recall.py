"""What a recall does at once, and what it does once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

from services.memory.policy import Held, MemoryPolicy
from services.memory.recall import Question, Recall
from services.memory.store import Embedding, Filter, Gathered, Probe, Worded
from services.memory.store_memory import InMemoryStore
from services.memory.used import Used
from shared.clock import FakeClock
from tests.support.memory import NOW, HashingEmbedder, entry
from tests.support.published import enforcing


class Watched(InMemoryStore):
    """Tells when words were looked for, and counts what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.looked = asyncio.Event()
        self.asked: list[str] = []

    async def worded(self, tenant: str, words: Sequence[str], chosen: Filter, *, now: datetime, limit: int) -> Worded:
        self.asked.append("worded")
        self.looked.set()
        return await super().worded(tenant, words, chosen, now=now, limit=limit)

    async def gather(
        self, tenant: str, probe: Probe, chosen: Filter, *, now: datetime, worded: Worded | None = None
    ) -> Gathered:
        self.asked.append("gather")
        return await super().gather(tenant, probe, chosen, now=now, worded=worded)


class Waiting(HashingEmbedder):
    """Has no vector before the words were looked for."""

    def __init__(self, looked: asyncio.Event) -> None:
        super().__init__()
        self._looked = looked

    async def embed(self, texts: Sequence[str], *, query: bool = False) -> list[Embedding]:
        async with asyncio.timeout(10):
            await self._looked.wait()
        return await super().embed(texts, query=query)


async def test_words_are_looked_for_while_the_vector_is_made() -> None:
    store = Watched()
    recall = await _recall(store, Waiting(store.looked))
    await store.add("t", [entry("the harbour opens at nine")])
    answer = await recall.recall("t", Question("harbour", Filter(), 5))
    assert [one.memory.content for one in answer.matches] == ["the harbour opens at nine"]
    assert store.asked == ["worded", "gather"]


async def test_after_a_slip_only_the_words_are_looked_for_again() -> None:
    store = Watched()
    recall = await _recall(store, HashingEmbedder())
    await store.add("t", [entry("the harbour opens at nine")])
    answer = await recall.recall("t", Question("harbuor", Filter(), 5, by_meaning=False))
    assert [one.explanation.matched for one in answer.matches] == [("harbour",)]
    assert store.asked == ["worded", "worded", "gather"]


async def _recall(store: InMemoryStore, embedder: HashingEmbedder) -> Recall:
    clock, policy = FakeClock(NOW), MemoryPolicy(await enforcing(Held.of), strict=True)
    return Recall(store, embedder, Used(store, clock), policy=policy, clock=clock)
