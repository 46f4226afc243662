"""A real Postgres for tests: the embedded one in a folder of its own, with roles, schemas and every migration."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deploy.local.postgres import Cluster
from deploy.local.state import State, free_port
from shared.migrate import migrate, migrations
from tests.support.lives import needed


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for the whole run; `postgres.dsn("tools")` is the address for a service's role."""
    with running_cluster(tmp_path_factory.mktemp("postgres")) as cluster:
        yield cluster


@contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster in the block, with every migration applied."""
    state = State(folder)
    state.prepare()
    cluster = Cluster(state, port=free_port())
    cluster.initialise()
    with (state.logs / "postgres.log").open("wb") as log:
        process = subprocess.Popen(cluster.command(), stdout=log, stderr=log)
        try:
            _apart(lambda: _prepare(cluster))
            with needed(process, "Postgres", state.logs / "postgres.log"):
                yield cluster
        finally:
            _apart(cluster.stop)
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


async def _prepare(cluster: Cluster) -> None:
    ends = time.monotonic() + 20
    while not await cluster.ready():
        if time.monotonic() > ends:
            raise TimeoutError("Postgres did not come up; its log is in the state folder")
        await asyncio.sleep(0.05)
    await cluster.bootstrap()
    await migrate(cluster.dsn("owner"), migrations())


def _apart(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs in a thread with a loop of its own: the test's loop is not for fixtures of the session."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(work())).result()
