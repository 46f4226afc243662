"""The fork server as the supervisor uses it: real forks of a real process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.forked import Forked, answers, fork
from tests.e2e.conftest import ROOT, alive, wait_until

MODULE = "tests.support.forked_child"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A short path: a Unix socket's is at most 107 bytes."""
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = (sys.executable, "-m", "deploy.local.forkserver", str(folder / "fork.sock"))
    process = subprocess.Popen(command, cwd=ROOT)
    wait_until(lambda: answers(folder / "fork.sock"), seconds=30)
    yield process
    process.kill()
    process.wait()


async def start(folder: Path, told: str) -> Forked:
    with (folder / "log").open("wb") as log:
        return await fork(folder / "fork.sock", MODULE, name="child", environment={"TOLD": told}, log=log.fileno())


@pytest.mark.usefixtures("server")
async def test_a_fork_has_its_own_environment_log_and_name_and_its_end_is_known(folder: Path) -> None:
    child = await start(folder, "stay")
    await asyncio.to_thread(wait_until, lambda: (folder / "log").read_text().endswith("\n"), seconds=5)
    assert (folder / "log").read_text() == "stay ['TOLD']\n"
    assert Path(f"/proc/{child.pid}/comm").read_text() == "child\n"
    assert os.getsid(child.pid) == child.pid
    child.send_signal(signal.SIGTERM)
    await asyncio.wait_for(child.wait(), 5)
    assert not alive(child.pid)
    with pytest.raises(ProcessLookupError):
        child.send_signal(signal.SIGTERM)


@pytest.mark.usefixtures("server")
async def test_many_that_end_at_once_are_all_known_to_have_ended_and_leave_no_zombie(folder: Path) -> None:
    children = await asyncio.gather(*(start(folder, "go") for _ in range(20)))
    await asyncio.wait_for(asyncio.gather(*(child.wait() for child in children)), 10)
    wait_until(lambda: not any(alive(child.pid) for child in children), seconds=5)


async def test_forks_die_with_their_server_and_who_asks_then_is_told(
    folder: Path, server: subprocess.Popen[bytes]
) -> None:
    child = await start(folder, "stay")
    server.kill()
    await asyncio.wait_for(child.wait(), 5)
    assert not answers(folder / "fork.sock")
    with pytest.raises(OSError, match="refused"):
        await start(folder, "stay")
