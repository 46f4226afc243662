"""The cache of vectors: its size, its age, and what goes first."""

from __future__ import annotations

from datetime import timedelta

from services.memory.embed import CachedEmbedder
from shared.clock import FakeClock
from tests.support.memory import HashingEmbedder


def cache(size: int = 2) -> tuple[CachedEmbedder, HashingEmbedder, FakeClock]:
    inner, clock = HashingEmbedder(), FakeClock()
    return CachedEmbedder(inner, clock, size=size, ttl=timedelta(minutes=1)), inner, clock


async def test_a_text_is_embedded_once_also_within_a_call() -> None:
    cached, inner, _ = cache()
    first = await cached.embed(["a", "b", "a"])
    assert await cached.embed(["b", "a"]) == [first[1], first[0]]
    assert first[0] == first[2]
    assert inner.calls == ["a", "b"]
    assert cached.model == "hashing"


async def test_the_longest_unasked_goes_first() -> None:
    cached, inner, _ = cache()
    await cached.embed(["a"])
    await cached.embed(["b"])
    await cached.embed(["a"])
    await cached.embed(["c"])
    await cached.embed(["a", "b"])
    assert inner.calls == ["a", "b", "c", "b"]


async def test_a_vector_is_kept_no_longer_than_its_time_however_often_asked() -> None:
    cached, inner, clock = cache()
    for _ in range(3):
        await cached.embed(["a"])
        clock.advance(timedelta(seconds=25))
    await cached.embed(["a"])
    assert inner.calls == ["a", "a"]


async def test_more_texts_than_fit_still_get_their_vectors() -> None:
    cached, inner, _ = cache(size=1)
    found = await cached.embed(["a", "b", "c"])
    assert len({*found}) == 3
    assert inner.calls == ["a", "b", "c"]
