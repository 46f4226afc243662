"""Answers kept for the same request, or one that means the same: per tenant, for a time, least used forgotten first.

A key holds the policy revision and everything that goes to the model, so an answer ends with the policy, the model and
the prompt version it was made under. Answers are kept after policy. Redis keeps them; without it nothing is found.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from importlib import import_module
from typing import Any, Final

from pydantic import ValidationError
from redis.asyncio import Redis

from services.inference.answers import Answer
from services.inference.canonical import canonical, digest
from services.inference.embeddings.contract import Embedder
from services.inference.providers.contract import ModelCall, Role
from shared.clock import Clock
from shared.errors import MeshError
from shared.log import log
from shared.redis import RedisLost
from shared.telemetry import meter

_PER_TENANT: Final = 1000
_SEMANTIC_PER_TENANT: Final = 512
_asked = meter.create_counter(
    "response_cache_total", description="look-ups, by what was found: exact, semantic or none"
)

_KEEP: Final = """
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[4])
redis.call('PEXPIRE', KEYS[2], 604800000)
local over = redis.call('ZCARD', KEYS[2]) - tonumber(ARGV[5])
if over > 0 then
  for _, member in ipairs(redis.call('ZPOPMIN', KEYS[2], over)) do redis.call('DEL', ARGV[6] .. member) end
end
"""
_KEEP_MEANING: Final = """
if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[3]) then redis.call('DEL', KEYS[1]) end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[4]) then redis.call('PEXPIRE', KEYS[1], ARGV[4]) end
"""


@dataclass(frozen=True, slots=True)
class CacheKey:
    """What an answer is kept under; `kin` is shared by requests that differ in the last message only."""

    tenant: str
    exact: str
    kin: str
    last: str


def key_of(
    tenant: str, call: ModelCall, *, revision: int, prompt_version: str, bundles: Sequence[str] = ()
) -> CacheKey:
    """The key of a call under a policy revision, bundles of its own and a prompt version."""
    bound = {"policy": revision, "prompt": prompt_version, **({"bundles": list(bundles)} if bundles else {})}
    last = call.messages[-1]
    others = replace(call, messages=call.messages[:-1])
    kin = digest({**bound, "kin": canonical(others), "media": len(last.media)})
    asked = last.text if last.role is Role.USER and not last.media else ""
    return CacheKey(tenant, digest({**bound, "call": canonical(call)}), kin, asked)


class AnswerCache:
    """Exact answers in Redis for all replicas; meanings in an index of vectors beside them."""

    def __init__(self, redis: Redis, embedder: Embedder, *, clock: Clock, capacity: int = _PER_TENANT) -> None:
        self._redis = redis
        self._embedder = embedder
        self._clock = clock
        self._capacity = capacity
        self._keep = redis.register_script(_KEEP)
        self._meant = redis.register_script(_KEEP_MEANING)
        self._computing: set[asyncio.Task[bytes | None]] = set()

    async def find(self, key: CacheKey, *, oldest: timedelta) -> Answer | None:
        """The answer to exactly this request, when it is no older."""
        answer = await self.look(key, oldest=oldest)
        _asked.add(1, {"found": "exact" if answer else "none"})
        return answer

    async def look(self, key: CacheKey, *, oldest: timedelta) -> Answer | None:
        """As `find`, uncounted: once more before the model is asked."""
        return await self._load(key.tenant, key.exact, oldest)

    async def find_alike(self, key: CacheKey, *, similarity: float, oldest: timedelta) -> Answer | None:
        """The answer to the request nearest in meaning, if it is near enough."""
        if not key.last:
            return None
        try:
            entries: Any = await self._redis.hgetall(_meanings(key))
        except RedisLost:
            return None
        if not entries:
            self._ahead(key.last)
            return None
        vector = await self._vector(key.last)
        if vector is None:
            return None
        nearest, score = _nearest(entries, vector)
        if score < similarity:
            return None
        answer = await self._load(key.tenant, nearest.decode(), oldest)
        if answer is None:  # it has expired; its meaning need not be looked at again
            await self._forget(key, nearest)
        else:
            _asked.add(1, {"found": "semantic"})
        return answer

    async def keep(self, key: CacheKey, answer: Answer, *, ttl: timedelta, semantic: bool) -> None:
        """Keeps an answer; nothing is promised."""
        used, lasts = self._clock.now().timestamp(), max(1, int(ttl / timedelta(milliseconds=1)))
        prefix = _answer(key.tenant, "")
        try:
            await self._keep(
                keys=[prefix + key.exact, _used(key.tenant)],
                args=[
                    answer.model_copy(update={"kept_at": used}).model_dump_json(),
                    lasts,
                    used,
                    key.exact,
                    self._capacity,
                    prefix,
                ],
            )
            if semantic and key.last and (vector := await self._vector(key.last)):
                await self._meant(keys=[_meanings(key)], args=[key.exact, vector, _SEMANTIC_PER_TENANT, lasts])
        except RedisLost:
            return

    async def drain(self) -> None:
        """Returns when nothing is being computed any more."""
        if self._computing:
            await asyncio.wait(self._computing)

    async def _load(self, tenant: str, exact: str, oldest: timedelta) -> Answer | None:
        now = self._clock.now().timestamp()
        try:
            found = await self._redis.get(_answer(tenant, exact))
            if found is None:
                return None
            answer = Answer.model_validate_json(found)
            if now - answer.kept_at > oldest.total_seconds():
                return None
            await self._redis.zadd(_used(tenant), {exact: now})
        except (*RedisLost, ValidationError):
            return None
        return answer

    async def _forget(self, key: CacheKey, exact: bytes) -> None:
        try:
            await self._redis.hdel(_meanings(key), exact.decode())
        except RedisLost:
            return

    def _ahead(self, text: str) -> None:
        """Computes while the model answers what is kept after it: the first text of a process waits for a model."""
        task = asyncio.create_task(self._vector(text), name="embed ahead")
        self._computing.add(task)
        task.add_done_callback(self._computing.discard)

    async def _vector(self, text: str) -> bytes | None:
        """As it is kept: 32-bit floats; none when there is no embedding it: then nothing is alike."""
        try:
            return array("f", (await self._embedder.embed([text])).vectors[0]).tobytes()
        except MeshError as error:
            log.warning("response_cache.no_meaning", reason=error.reason_name, error=error.message)
            return None


def _nearest(entries: Mapping[bytes, bytes], vector: bytes) -> tuple[bytes, float]:
    """Whose vector is nearest, and how near."""
    numpy = import_module("numpy")  # 11 MB: loaded where somebody asks by meaning
    rows = numpy.frombuffer(b"".join(entries.values()), numpy.float32).reshape(len(entries), -1)
    scores = rows @ numpy.frombuffer(vector, numpy.float32)
    best = int(scores.argmax())
    return list(entries)[best], float(scores[best])


def _answer(tenant: str, exact: str) -> str:
    return f"answer:{{{tenant}}}:{exact}"


def _used(tenant: str) -> str:
    return f"answers-used:{{{tenant}}}"


def _meanings(key: CacheKey) -> str:
    return f"answers-meaning:{{{key.tenant}}}:{key.kin}"
