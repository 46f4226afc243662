"""A served replica with its live tail in a real Valkey."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from shared.redis import open_redis
from tests.support.identity import Keys, make_keys
from tests.support.inference import Replica, replica
from tests.support.valkey import valkey_url

__all__ = ("valkey_url",)


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return make_keys(tmp_path)


@pytest.fixture
async def redis(valkey_url: str) -> AsyncIterator[Redis]:
    async with open_redis(valkey_url) as client:
        await client.flushall()
        yield client


@pytest.fixture
async def served(keys: Keys, redis: Redis) -> AsyncIterator[Replica]:
    async with replica(keys, redis) as running:
        yield running
