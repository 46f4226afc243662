"""Orders that a model's calls go to a cheaper one for a time: per tenant, in Redis, remembered till they change."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from redis.asyncio import Redis

from shared.errors import Unavailable
from shared.redis import RedisLost

_LOOK_SECONDS: Final = 0.25
_KNOWN_AT_MOST: Final = 10_000
_LONGEST_SECONDS: Final = 60.0
_CHANGES: Final = "downgrade-changes"


@dataclass(frozen=True, slots=True)
class Downgrade:
    """Where calls go instead, and why."""

    to_model: str
    reason: str


class Downgrades:
    """Losing Redis loses the orders: calls then go where they asked to."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._known: dict[tuple[str, str], tuple[float, Downgrade | None]] = {}
        self._changes: object = None
        self._watched = False

    async def watch(self) -> None:
        """Learns of orders given at other replicas, four times a second, for as long as the service runs."""
        try:
            while True:
                await self.look()
                await asyncio.sleep(_LOOK_SECONDS)
        finally:
            self._forget()

    async def look(self) -> None:
        """One look. Until the next one what is known stands; without Redis each call asks."""
        try:
            changes = await self._redis.get(_CHANGES)
        except RedisLost:
            self._forget()
            return
        if changes != self._changes:
            self._known.clear()
        self._changes, self._watched = changes, True

    def _forget(self) -> None:
        self._watched = False
        self._known.clear()

    async def order(self, tenant: str, from_model: str, downgrade: Downgrade, *, lasts: timedelta) -> None:
        """Raises Unavailable."""
        data = json.dumps({"to_model": downgrade.to_model, "reason": downgrade.reason})
        try:
            await self._redis.set(_key(tenant, from_model), data, px=lasts)
            await self._changed()
        except RedisLost as error:
            raise Unavailable("the order cannot be written", dependency="redis") from error

    async def end(self, tenant: str, from_model: str) -> None:
        """Raises Unavailable."""
        try:
            await self._redis.delete(_key(tenant, from_model))
            await self._changed()
        except RedisLost as error:
            raise Unavailable("the order cannot be taken back", dependency="redis") from error

    async def of(self, tenant: str, model: str) -> Downgrade | None:
        """The order that stands for a model."""
        known = self._known.get((tenant, model))
        if known and known[0] > time.monotonic():
            return known[1]
        return await self._asked(tenant, model)

    async def _asked(self, tenant: str, model: str) -> Downgrade | None:
        changes = self._changes
        try:
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.get(_key(tenant, model))
                pipeline.pttl(_key(tenant, model))
                found, left = await pipeline.execute()
        except RedisLost:
            return None
        downgrade = Downgrade(**json.loads(found)) if found else None
        if self._watched and changes == self._changes:
            if len(self._known) >= _KNOWN_AT_MOST:
                self._known.clear()
            lasts = left / 1000 if found else _LONGEST_SECONDS
            self._known[tenant, model] = (time.monotonic() + lasts, downgrade)
        return downgrade

    async def _changed(self) -> None:
        self._changes = str(await self._redis.incr(_CHANGES)).encode()
        self._known.clear()


def _key(tenant: str, model: str) -> str:
    return f"downgrade:{{{tenant}}}:{model}"
