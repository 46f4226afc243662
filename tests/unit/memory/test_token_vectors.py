"""Vectors of tokens from storing to recall: whose they are, when they change, and what is ranked without them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import pytest

from services.memory.closely import WIDTH
from services.memory.policy import Held, MemoryPolicy
from services.memory.recall import Question, Recall
from services.memory.remember import Change, NewMemory, Remembering
from services.memory.store import Embedding, Filter, MemoryType, Vector
from services.memory.store_memory import InMemoryStore
from services.memory.upkeep import Limits
from services.memory.used import Used
from services.memory.words import stems
from shared.clock import FakeClock
from shared.ids import SequentialIds
from tests.support.memory import NOW, HashingEmbedder, vector
from tests.support.published import enforcing

_SIGNS = {"read", "tokens_similarity"}


class ReadingEmbedder(HashingEmbedder):
    """A token a word, along an axis of its own. Punctuation has none. `most`: texts at once."""

    most = 0

    async def embed(self, texts: Sequence[str], *, query: bool = False) -> list[Embedding]:
        self.most = max(self.most, len(texts))
        plain = await super().embed(texts, query=query)
        return [Embedding(one.vector, tokens_of(text)) for one, text in zip(plain, texts, strict=True)]


def tokens_of(text: str) -> bytes:
    axes = [int(hashlib.sha256(word.encode()).hexdigest(), 16) % WIDTH for word in stems(text)]
    return b"".join(bytes(127 if at == axis else 0 for at in range(WIDTH)) for axis in axes)


class Service:
    """Storing and recalling in this process."""

    def __init__(self, policy: MemoryPolicy) -> None:
        self.store, self.embedder, clock = InMemoryStore(), ReadingEmbedder(), FakeClock(NOW)
        limits = Limits(self.store, clock, memories=99)
        self.remembering = Remembering(
            self.store, self.embedder, limits, policy=policy, clock=clock, ids=SequentialIds()
        )
        self.recall = Recall(self.store, self.embedder, Used(self.store, clock), policy=policy, clock=clock)

    async def keep(self, content: str, **more: Any) -> str:
        kept, _ = await self.remembering.remember("t", NewMemory(content, MemoryType.SEMANTIC, **more))
        return kept.id

    async def parts(self, query: str, given: Vector = ()) -> dict[str, set[str]]:
        """By content the names of the parts of its relevance."""
        found = await self.recall.recall("t", Question(query, Filter(), 9, min_score=-1.0, vector=given))
        return {one.memory.content: set(one.explanation.parts) for one in found.matches}


@pytest.fixture
async def service() -> Service:
    return Service(MemoryPolicy(await enforcing(Held.of), strict=True))


async def test_what_the_model_has_read_is_compared_token_by_token_and_what_was_given_is_not(service: Service) -> None:
    await service.keep("the harbour at night")
    await service.keep("a vector of its own", vector=vector(1, 1))
    parts = await service.parts("harbour?")
    assert parts["the harbour at night"] >= _SIGNS
    assert not _SIGNS & parts["a vector of its own"]


async def test_a_question_with_a_given_vector_reads_nothing(service: Service) -> None:
    await service.keep("the harbour at night")
    parts = await service.parts("harbour?", vector(1))
    assert not _SIGNS & parts["the harbour at night"]


async def test_tokens_follow_the_content_and_stay_with_other_changes(service: Service) -> None:
    kept = await service.keep("the harbour at night")
    await service.remembering.update("t", kept, Change(tags=("sea",)))
    assert await service.store.tokens("t", kept) == tokens_of("the harbour at night")
    await service.remembering.update("t", kept, Change(content="a lighthouse"))
    assert await service.store.tokens("t", kept) == tokens_of("a lighthouse")


async def test_another_model_brings_its_own_tokens(service: Service) -> None:
    kept = await service.keep("the harbour at night")
    service.embedder.model = "another"
    assert not _SIGNS & (await service.parts("harbour?"))["the harbour at night"]
    assert await service.remembering.reembed("t", limit=9) == (1, 0)
    assert (await service.parts("harbour?"))["the harbour at night"] >= _SIGNS
    assert await service.store.tokens("t", kept) == tokens_of("the harbour at night")


async def test_a_question_never_waits_for_many_texts_that_are_embedded_anew(service: Service) -> None:
    for number in range(20):
        await service.keep(f"the harbour at night {number}")
    service.embedder.model = "another"
    assert await service.remembering.reembed("t", limit=20) == (20, 0)
    assert service.embedder.most == 8


async def test_what_was_kept_without_tokens_gets_them_and_keeps_its_vector(service: Service) -> None:
    plain = HashingEmbedder()
    service.remembering._embedder = plain
    kept = [await service.keep(f"the harbour at night {n}") for n in range(3)] + [await service.keep("...")]
    await service.keep("restricted", embedding_set="set")
    await service.keep("a vector of its own", vector=vector(1, 1))
    assert await service.remembering.reembed("t", limit=9) == (0, 0)
    service.remembering._embedder = service.embedder
    assert await service.remembering.reembed("t", limit=0) == (0, 4)
    assert await service.remembering.reembed("t", limit=2) == (2, 2)
    assert await service.remembering.reembed("t", limit=9) == (2, 0)
    assert await service.remembering.reembed("t", limit=9) == (0, 0)
    assert await service.store.tokens("t", kept[0]) == tokens_of("the harbour at night 0")
    assert (await service.parts("harbour?"))["the harbour at night 0"] >= _SIGNS


async def test_texts_of_embedding_sets_keep_no_tokens(service: Service) -> None:
    kept = await service.keep("restricted", embedding_set="set")
    assert await service.store.tokens("t", kept) == b""
