"""The bus over Redis Streams, as gateway reads it."""

from __future__ import annotations

from collections.abc import Sequence

from redis.asyncio import Redis

from services.orchestrator.agents.outcome import News
from shared import bus


class RedisHerald:
    """Tells gateway's bus. The news' own ids make telling them twice harmless."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def tell(self, tenant: str, news: Sequence[News]) -> None:
        told = [
            bus.entry(
                tenant, one.name, source="orchestrator", time=one.time, event_id=one.id, subject=one.subject[:255],
                session_id=one.session_id, agent=one.agent[:200], data=dict(one.data),
            )
            for one in news
        ]  # fmt: skip
        await bus.tell(self._redis, told)
