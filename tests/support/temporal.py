"""Temporal's own development server, in memory, gone at the end of the block."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from temporalio.client import Client
from temporalio.service import RPCError

from tests.support.valkey import free_port


@contextmanager
def running_temporal(port: int) -> Iterator[str]:
    """The address of a server that may not answer yet; clients wait for it."""
    command = Path(sys.executable).with_name("temporal")
    arguments = ("server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", str(port), "--log-level", "error")
    process = subprocess.Popen((str(command), *arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


async def temporal_client(address: str) -> Client:
    """Connected: the server answers and has its namespace."""
    async with asyncio.timeout(60):
        while True:
            try:
                client = await Client.connect(address)
                async for _ in client.list_workflows(page_size=1):
                    break
            except (RPCError, RuntimeError):
                await asyncio.sleep(0.1)
            else:
                return client


@pytest.fixture(scope="session")
def temporal_address() -> Iterator[str]:
    with running_temporal(free_port()) as address:
        yield address
