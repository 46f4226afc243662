"""Redis as the mesh uses it: for what can be lost or rebuilt."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

# What a caller must expect from every call and be able to live with.
RedisLost = (RedisConnectionError, RedisTimeoutError, OSError)


@asynccontextmanager
async def open_redis(url: str) -> AsyncIterator[Redis]:
    """A client that gives up on a call after 2 seconds and reconnects by itself. Values are bytes."""
    client = Redis.from_url(
        url,
        socket_timeout=2,
        socket_connect_timeout=2,
        health_check_interval=15,
        retry=Retry(ExponentialBackoff(cap=0.2, base=0.02), 2),
    )
    try:
        yield client
    finally:
        await client.aclose()
