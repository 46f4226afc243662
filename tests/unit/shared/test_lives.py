"""A run whose shared server has died ends with the next test, on every worker, and says why."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from tests.conftest import pytest_runtest_setup
from tests.support.lives import needed

ROOT = Path(__file__).resolve().parents[3]
SHARED = """
import os, signal, subprocess, sys
import pytest
from pathlib import Path
from tests.conftest import pytest_runtest_setup
from tests.support.lives import needed

@pytest.fixture(scope="session", autouse=True)
def server(tmp_path_factory):
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("wb") as told:
        process = subprocess.Popen((sys.executable, "-c", "print('out of disk', flush=True); input()"),
                                   stdin=subprocess.PIPE, stdout=told)
        with process, needed(process, "The oracle", log):
            yield process
            process.kill()
"""
TESTS = """
import pytest

@pytest.mark.parametrize("number", range(50))
def test_one(number, server):
    if number == 3:
        server.stdin.close()
        server.wait()
"""


def test_a_dead_server_ends_the_run_with_its_last_words(tmp_path: Path) -> None:
    log, session = tmp_path / "log", SimpleNamespace(shouldstop=False)
    item = cast("pytest.Item", SimpleNamespace(session=session))
    with (
        log.open("wb") as told,
        subprocess.Popen(("sh", "-c", "echo out of disk; read _"), stdin=-1, stdout=told) as oracle,
    ):
        with needed(oracle, "The oracle", log):
            pytest_runtest_setup(item)
            assert oracle.stdin
            oracle.stdin.close()
            oracle.wait()
            with pytest.raises(pytest.fail.Exception, match="The oracle, which tests share, has died with status 1"):
                pytest_runtest_setup(item)
        assert "out of disk" in str(session.shouldstop)
    pytest_runtest_setup(item)  # who needs it no more is not told


@pytest.mark.heavy
def test_the_other_workers_end_too(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(SHARED)
    (tmp_path / "test_it.py").write_text(TESTS)
    ended = subprocess.run(
        (sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", "--rootdir", tmp_path, "-n", "2", tmp_path),
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert ended.returncode != 0
    assert "The oracle, which tests share, has died with status 1; its last words:\nout of disk" in ended.stdout
    assert 4 <= int(ended.stdout.rpartition(" passed")[0].split()[-1]) < 50, ended.stdout
