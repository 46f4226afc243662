"""Orders that a model's calls go to a cheaper one for a time: per tenant, in Redis, looked at with every call."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta

from redis.asyncio import Redis

from shared.errors import Unavailable
from shared.redis import RedisLost


@dataclass(frozen=True, slots=True)
class Downgrade:
    """Where calls go instead, and why."""

    to_model: str
    reason: str


class Downgrades:
    """Losing Redis loses the orders: calls then go where they asked to."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def order(self, tenant: str, from_model: str, downgrade: Downgrade, *, lasts: timedelta) -> None:
        """Raises Unavailable."""
        data = json.dumps({"to_model": downgrade.to_model, "reason": downgrade.reason})
        try:
            await self._redis.set(_key(tenant, from_model), data, px=lasts)
        except RedisLost as error:
            raise Unavailable("the order cannot be written", dependency="redis") from error

    async def end(self, tenant: str, from_model: str) -> None:
        """Raises Unavailable."""
        try:
            await self._redis.delete(_key(tenant, from_model))
        except RedisLost as error:
            raise Unavailable("the order cannot be taken back", dependency="redis") from error

    async def of(self, tenant: str, model: str) -> Downgrade | None:
        """The order that stands for a model."""
        try:
            found = await self._redis.get(_key(tenant, model))
        except RedisLost:
            return None
        return Downgrade(**json.loads(found)) if found else None


def _key(tenant: str, model: str) -> str:
    return f"downgrade:{{{tenant}}}:{model}"
