"""The stores under test: in memory, and on a real Postgres and a real Valkey."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from deploy.local.postgres import Cluster
from services.orchestrator.leases_memory import MemoryLeaseStore
from services.orchestrator.leases_postgres import PostgresLeaseStore
from services.orchestrator.store import AgentStore, LeaseStore, LogTail, SessionStore
from services.orchestrator.store_memory import MemoryAgentStore, MemorySessionStore
from services.orchestrator.store_postgres import PostgresAgentStore, PostgresSessionStore
from services.orchestrator.tail import RedisTail
from services.orchestrator.tail_memory import MemoryTail
from shared.clock import FakeClock
from shared.postgres import open_database
from shared.redis import open_redis
from tests.support.valkey import valkey_url

__all__ = ("valkey_url",)

LOG_KEY = b"a key of the tests"
_TABLES = ("happening", "checkpoint", "signal", "event", "turn", "task_graph", "session_lease", "session", "agent")


@dataclass(frozen=True, slots=True)
class Stores:
    """One implementation. `pass_time` lets leases of the given length run out."""

    agents: AgentStore
    sessions: SessionStore
    leases: LeaseStore
    pass_time: Callable[[], Awaitable[None]]
    ttl: timedelta


@pytest.fixture(params=["memory", "postgres"])
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[Stores]:
    if request.param == "memory":
        yield _in_memory()
        return
    async with _in_postgres(request.getfixturevalue("postgres")) as found:
        yield found


@pytest.fixture(params=["memory", "redis"])
async def tail(request: pytest.FixtureRequest) -> AsyncIterator[LogTail]:
    if request.param == "memory":
        yield MemoryTail()
        return
    async with open_redis(request.getfixturevalue("valkey_url")) as redis:
        await redis.flushall()
        yield RedisTail(redis, ttl=timedelta(minutes=1))


@pytest.fixture
async def redis(valkey_url: str) -> AsyncIterator[Redis]:
    async with open_redis(valkey_url) as client:
        await client.flushall()
        yield client


@pytest.fixture
async def admin(postgres: Cluster) -> AsyncIterator[Any]:
    """A connection that row-level security does not bind."""
    connection = await asyncpg.connect(postgres.dsn("postgres"))
    try:
        yield connection
    finally:
        await connection.close()


def _in_memory() -> Stores:
    clock = FakeClock()
    leases = MemoryLeaseStore(clock)
    ttl = timedelta(seconds=3)

    async def pass_time() -> None:
        clock.advance(ttl * 2)

    return Stores(MemoryAgentStore(), MemorySessionStore(leases), leases, pass_time, ttl)


@asynccontextmanager
async def _in_postgres(cluster: Cluster) -> AsyncIterator[Stores]:
    admin = await asyncpg.connect(cluster.dsn("postgres"))
    try:
        for table in _TABLES:
            await admin.execute(f"delete from orchestrator.{table}")
    finally:
        await admin.close()

    async def pass_time() -> None:
        connection = await asyncpg.connect(cluster.dsn("postgres"))
        try:
            await connection.execute(
                "update orchestrator.session_lease set expires_at = now() - interval '1 second' where owner is not null"
            )
        finally:
            await connection.close()

    async with (
        open_database(cluster.dsn("orchestrator"), pool=4) as own,
        open_database(cluster.dsn("orchestrator_driver"), pool=2) as driver,
    ):
        sessions = PostgresSessionStore(own, log_key=LOG_KEY)
        yield Stores(PostgresAgentStore(own), sessions, PostgresLeaseStore(driver), pass_time, timedelta(seconds=30))
