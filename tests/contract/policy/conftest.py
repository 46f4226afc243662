"""Stores of policy, both kinds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import boto3
import pytest
from moto.server import ThreadedMotoServer

from services.policy.store import PolicyStore
from services.policy.store_memory import MemoryPolicyStore
from services.policy.store_postgres import PostgresPolicyStore
from shared.postgres import open_database

_ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "AWS_DEFAULT_REGION": "us-east-1"}


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


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    """A local S3 server with one bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _ENVIRONMENT.items():
            patch.setenv(name, value)
        boto3.client("s3", endpoint_url=url).create_bucket(Bucket="runs")
        yield url
    server.stop()


@pytest.fixture
def tenant() -> str:
    return f"tenant-{uuid4()}"
