"""Stores of policy, both kinds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from services.policy.store import PolicyStore
from services.policy.store_memory import MemoryPolicyStore
from services.policy.store_postgres import PostgresPolicyStore
from shared.postgres import open_database


@pytest.fixture(params=["memory", "postgres"])
def dsn(request: pytest.FixtureRequest) -> str | None:
    return request.getfixturevalue("postgres").dsn("policy") if request.param == "postgres" else None


@pytest.fixture
async def store(dsn: str | None) -> AsyncIterator[PolicyStore]:
    if dsn is None:
        yield MemoryPolicyStore()
        return
    async with open_database(dsn, pool=2) as database:
        yield PostgresPolicyStore(database, dsn)


@pytest.fixture
def tenant() -> str:
    return f"tenant-{uuid4()}"
