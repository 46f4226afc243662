"""What the caching embedder may rely on, whichever cache it has, and what it promises its callers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest

from services.inference.embeddings.cache import (
    CachingEmbedder,
    Kept,
    MemoryVectorCache,
    RedisVectorCache,
    VectorCache,
)
from services.inference.embeddings.contract import Embedded
from shared.clock import FakeClock
from shared.redis import open_redis
from tests.support.valkey import free_port, valkey_url

__all__ = ("valkey_url",)

HOUR = timedelta(hours=1)
ONE, TWO = Kept.of((0.6, 0.8), cut=False), Kept.of((1.0, 0.0), cut=True, token_vectors=b"tokens")


class CountingEmbedder:
    """The length of each text as its vector, a token a character, cut at 9; remembers what it computed."""

    def __init__(self) -> None:
        self.computed: list[list[str]] = []

    async def embed(self, texts: Sequence[str]) -> Embedded:
        self.computed.append(list(texts))
        cut = tuple(place for place, text in enumerate(texts) if len(text) > 9)
        return Embedded(tuple((float(len(text)), 0.1) for text in texts), sum(map(len, texts)), len(cut), cut)


@pytest.fixture(params=["memory", "redis"])
def url(request: pytest.FixtureRequest) -> str | None:
    return request.getfixturevalue("valkey_url") if request.param == "redis" else None


@pytest.fixture
async def cache(url: str | None) -> AsyncIterator[VectorCache]:
    if url is None:
        yield MemoryVectorCache(FakeClock(), size=1000, ttl=HOUR)
        return
    async with open_redis(url) as redis:
        yield RedisVectorCache(redis, ttl=HOUR)


@pytest.fixture
def tenant() -> str:
    return f"tenant-{uuid4()}"


async def test_what_is_kept_is_found_as_it_was(cache: VectorCache, tenant: str) -> None:
    await cache.keep(tenant, {"a": ONE, "b": TWO})
    assert dict(await cache.find(tenant, ["b", "c", "a"])) == {"a": ONE, "b": TWO}
    assert ONE.vector == pytest.approx((0.6, 0.8))


async def test_another_tenant_finds_nothing(cache: VectorCache, tenant: str) -> None:
    await cache.keep(tenant, {"a": ONE})
    assert dict(await cache.find(f"{tenant}-other", ["a"])) == {}


async def test_the_newest_is_kept(cache: VectorCache, tenant: str) -> None:
    await cache.keep(tenant, {"a": ONE})
    await cache.keep(tenant, {"a": TWO})
    assert dict(await cache.find(tenant, ["a"])) == {"a": TWO}


async def test_only_what_is_new_is_computed_and_counted(cache: VectorCache, tenant: str) -> None:
    model = CountingEmbedder()
    embedder = CachingEmbedder(model, cache, model="m", tenant=lambda: tenant)
    first = await embedder.embed(["aa", "b", "aa", "long enough to cut"])
    second = await embedder.embed(["long enough to cut", "ccc", "b"])
    assert model.computed == [["aa", "b", "long enough to cut"], ["ccc"]]
    assert (first.tokens, first.truncated, first.cut) == (21, 1, (3,))
    assert (second.tokens, second.truncated, second.cut) == (3, 1, (0,))
    assert first.vectors[0] == first.vectors[2]
    assert second.vectors[2] == first.vectors[1]
    assert [vector[0] for vector in second.vectors] == [18.0, 3.0, 1.0]


async def test_a_computed_text_is_no_hint_for_another_tenant_or_model(cache: VectorCache, tenant: str) -> None:
    model, caller = CountingEmbedder(), [tenant]
    embedder = CachingEmbedder(model, cache, model="m", tenant=lambda: caller[0])
    other = CachingEmbedder(model, cache, model="m2", tenant=lambda: caller[0])
    await embedder.embed(["aa"])
    await other.embed(["aa"])
    caller[0] = f"{tenant}-other"
    await embedder.embed(["aa"])
    assert model.computed == [["aa"]] * 3


async def test_memory_forgets_when_the_time_is_over() -> None:
    clock = FakeClock()
    cache = MemoryVectorCache(clock, size=1000, ttl=HOUR)
    await cache.keep("acme", {"a": ONE})
    clock.advance(HOUR - timedelta(seconds=1))
    assert dict(await cache.find("acme", ["a"])) == {"a": ONE}
    clock.advance(timedelta(seconds=1))
    assert dict(await cache.find("acme", ["a"])) == {}
    assert cache.held == 0


async def test_redis_forgets_when_the_time_is_over(valkey_url: str, tenant: str) -> None:
    async with open_redis(valkey_url) as redis:
        await redis.flushall()
        await RedisVectorCache(redis, ttl=HOUR).keep(tenant, {"a": ONE})
        (key,) = await redis.keys("*")
        assert tenant.encode() not in key
        assert 3_590_000 < await redis.pttl(key) <= 3_600_000


async def test_the_least_recently_used_goes_first() -> None:
    cache = MemoryVectorCache(FakeClock(), size=24, ttl=HOUR)  # three vectors of two floats
    await cache.keep("acme", {"a": ONE, "b": ONE, "c": ONE})
    await cache.find("acme", ["a"])
    await cache.keep("acme", {"d": ONE})
    assert set(await cache.find("acme", ["a", "b", "c", "d"])) == {"a", "c", "d"}
    assert cache.held == 24


async def test_a_busy_tenant_does_not_empty_anothers_cache() -> None:
    cache = MemoryVectorCache(FakeClock(), size=80, ttl=HOUR)
    await cache.keep("small", {"a": ONE, "b": ONE})
    for number in range(100):
        await cache.keep("busy", {str(number): ONE})
    assert set(await cache.find("small", ["a", "b"])) == {"a", "b"}
    assert cache.held == 80


async def test_without_redis_everything_is_computed_and_nothing_fails(tenant: str) -> None:
    model = CountingEmbedder()
    async with open_redis(f"redis://127.0.0.1:{free_port()}/0") as redis:
        embedder = CachingEmbedder(model, RedisVectorCache(redis, ttl=HOUR), model="m", tenant=lambda: tenant)
        for _ in range(2):
            assert (await embedder.embed(["aa"])).vectors[0][0] == 2.0
    assert len(model.computed) == 2


class ReadingEmbedder(CountingEmbedder):
    """The text itself as the vectors of its tokens."""

    async def embed(self, texts: Sequence[str]) -> Embedded:
        found = await super().embed(texts)
        return replace(found, token_vectors=tuple(text.encode() for text in texts))


async def test_vectors_of_tokens_are_kept_with_their_text(cache: VectorCache, tenant: str) -> None:
    model = ReadingEmbedder()
    embedder = CachingEmbedder(model, cache, model="m", tenant=lambda: tenant)
    await embedder.embed(["aa"])
    assert (await embedder.embed(["b", "aa"])).token_vectors == (b"b", b"aa")
    assert model.computed == [["aa"], ["b"]]


async def test_vectors_of_tokens_count_into_the_size_of_the_cache() -> None:
    cache = MemoryVectorCache(FakeClock(), size=24, ttl=HOUR)
    await cache.keep("t", {"a": Kept.of((1.0, 0.0), cut=False, token_vectors=b"x" * 10)})
    assert cache.held == 18
    await cache.keep("t", {"b": Kept.of((1.0, 0.0), cut=False)})
    assert (cache.held, list(await cache.find("t", ["a", "b"]))) == (8, ["b"])
