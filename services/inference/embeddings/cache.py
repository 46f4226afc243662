"""Vectors that were computed before: exact, a tenant apart, in this process or in Redis."""

from __future__ import annotations

import hashlib
import struct
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol

from redis.asyncio import Redis

from services.inference.embeddings.contract import Embedded, Embedder, Vector
from shared.clock import Clock
from shared.log import log
from shared.redis import RedisLost
from shared.telemetry import meter

_PREFIX: Final = "embedding:2:"
_HEAD: Final = struct.Struct("<?I")
_lookups = meter.create_counter("embedding_cache_lookups_total", description="texts looked up, by model and hit")


@dataclass(frozen=True, slots=True)
class Kept:
    """One vector, as 32-bit floats, whether its text had been cut, and the vectors of its tokens."""

    packed: bytes
    cut: bool
    token_vectors: bytes = b""

    @classmethod
    def of(cls, vector: Vector, *, cut: bool, token_vectors: bytes = b"") -> Kept:
        return cls(array("f", vector).tobytes(), cut, token_vectors)

    @classmethod
    def read(cls, value: bytes) -> Kept:
        """What `written` wrote."""
        cut, size = _HEAD.unpack_from(value)
        end = _HEAD.size + size
        return cls(value[_HEAD.size : end], cut, value[end:])

    @property
    def written(self) -> bytes:
        return _HEAD.pack(self.cut, len(self.packed)) + self.packed + self.token_vectors

    @property
    def size(self) -> int:
        """Bytes of vectors."""
        return len(self.packed) + len(self.token_vectors)

    @property
    def vector(self) -> Vector:
        return tuple(array("f", self.packed))


class VectorCache(Protocol):
    """May lose anything at any time and never fails."""

    async def find(self, tenant: str, keys: Sequence[str]) -> Mapping[str, Kept]:
        """Those that are there and not too old."""

    async def keep(self, tenant: str, found: Mapping[str, Kept]) -> None:
        """Remembers them."""


class MemoryVectorCache:
    """Least recently used goes first, of the tenant that holds most: nobody empties another's cache."""

    def __init__(self, clock: Clock, *, size: int, ttl: timedelta) -> None:
        """`size` is in bytes of vectors, for all tenants together."""
        self._clock = clock
        self._size = size
        self._ttl = ttl
        self._kept: dict[str, OrderedDict[str, tuple[timedelta, Kept]]] = {}
        self._held: dict[str, int] = {}

    async def find(self, tenant: str, keys: Sequence[str]) -> Mapping[str, Kept]:
        mine, found, now = self._kept.get(tenant, OrderedDict()), {}, self._clock.monotonic()
        for key in keys:
            if key in mine and mine[key][0] <= now:
                self._drop(tenant, key)
            elif key in mine:
                mine.move_to_end(key)
                found[key] = mine[key][1]
        return found

    async def keep(self, tenant: str, found: Mapping[str, Kept]) -> None:
        ends = self._clock.monotonic() + self._ttl
        for key, kept in found.items():
            mine = self._kept.setdefault(tenant, OrderedDict())
            if key in mine:
                self._drop(tenant, key)
                mine = self._kept.setdefault(tenant, OrderedDict())
            mine[key] = (ends, kept)
            self._held[tenant] = self._held.get(tenant, 0) + kept.size
        while sum(self._held.values()) > self._size:
            largest = max(self._held, key=lambda name: self._held[name])
            self._drop(largest, next(iter(self._kept[largest])))

    @property
    def held(self) -> int:
        """Bytes of vectors."""
        return sum(self._held.values())

    def _drop(self, tenant: str, key: str) -> None:
        _, kept = self._kept[tenant].pop(key)
        self._held[tenant] -= kept.size
        if not self._kept[tenant]:
            del self._kept[tenant], self._held[tenant]


class RedisVectorCache:
    """Shared by replicas. Without Redis every look-up misses."""

    def __init__(self, redis: Redis, *, ttl: timedelta) -> None:
        self._redis = redis
        self._ttl = ttl

    async def find(self, tenant: str, keys: Sequence[str]) -> Mapping[str, Kept]:
        try:
            values = await self._redis.mget([_place(tenant, key) for key in keys])
        except RedisLost as error:
            log.warning("embedding_cache.lost", error=type(error).__name__)
            return {}
        known = zip(keys, values, strict=True)
        return {key: Kept.read(value) for key, value in known if isinstance(value, bytes)}

    async def keep(self, tenant: str, found: Mapping[str, Kept]) -> None:
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for key, kept in found.items():
                    pipeline.set(_place(tenant, key), kept.written, px=self._ttl)
                await pipeline.execute()
        except RedisLost as error:
            log.warning("embedding_cache.lost", error=type(error).__name__)


class CachingEmbedder:
    """Computes only what its caller's tenant has not computed before. Tokens count what was computed."""

    def __init__(self, embedder: Embedder, cache: VectorCache, *, model: str, tenant: Callable[[], str]) -> None:
        """`tenant` tells whose call is being served."""
        self._embedder = embedder
        self._cache = cache
        self._model = model
        self._tenant = tenant

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """One vector a text; equal texts of one call are computed once."""
        tenant = self._tenant()
        keys = [hashlib.sha256(f"{self._model}\0{text}".encode()).hexdigest() for text in texts]
        known = dict(await self._cache.find(tenant, list(dict.fromkeys(keys))))
        self._count(keys, known)
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        tokens = 0
        if missing:
            computed = await self._embedder.embed(list(missing.values()))
            tokens = computed.tokens
            fresh = dict(zip(missing, _kept(computed), strict=True))
            await self._cache.keep(tenant, fresh)
            known |= fresh
        cut = tuple(place for place, key in enumerate(keys) if known[key].cut)
        of_tokens = tuple(known[key].token_vectors for key in keys)
        vectors = tuple(known[key].vector for key in keys)
        return Embedded(vectors, tokens, len(cut), cut, of_tokens if any(of_tokens) else ())

    def _count(self, keys: Iterable[str], known: Mapping[str, Kept]) -> None:
        for key in keys:
            _lookups.add(1, {"model": self._model, "hit": key in known})


def _kept(computed: Embedded) -> Iterator[Kept]:
    of_tokens = computed.token_vectors or (b"",) * len(computed.vectors)
    for place, (vector, tokens) in enumerate(zip(computed.vectors, of_tokens, strict=True)):
        yield Kept.of(vector, cut=place in computed.cut, token_vectors=tokens)


def _place(tenant: str, key: str) -> str:
    """No tenant's name leaves the process, and none can spell another's key."""
    return _PREFIX + hashlib.sha256(f"{tenant}\0{key}".encode()).hexdigest()
