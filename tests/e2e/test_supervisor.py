"""The supervisor as a user meets it: a second start, taken ports, one mesh a folder, and nothing left behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.e2e.conftest import Mesh, alive, start_mesh, wait_until


@pytest.fixture
def folder() -> Iterator[Path]:
    """Reachable by any user, unlike pytest's own."""
    made = Path(tempfile.mkdtemp(prefix="agentnet-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def whose(folder: Path) -> dict[str, Any]:
    """Started by an ordinary user, where this is root and Python can be run by others."""
    ordinary: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []}
    try:
        subprocess.run((sys.executable, "-V"), check=True, **ordinary)
    except PermissionError:
        return {}
    os.chown(folder, 65534, 65534)
    return ordinary


@pytest.fixture
def start(folder: Path, whose: dict[str, Any]) -> Iterator[Callable[[], Mesh]]:
    """Starts the folder's mesh. One that a failed test left running is stopped, so that it slows no other test."""
    begun: list[Mesh] = []

    def one() -> Mesh:
        begun.append(start_mesh(folder / "state", **whose))
        return begun[-1]

    yield one
    for mesh in begun:
        if mesh.supervisor.poll() is None:
            mesh.supervisor.terminate()
            mesh.supervisor.wait(timeout=40)


def every_pid(mesh: Mesh) -> list[int]:
    return [part["pid"] for part in mesh.mesh_file()["processes"] if part["pid"]]


def descendants(pids: list[int]) -> list[int]:
    listed = subprocess.run(("ps", "-eo", "pid=,ppid="), capture_output=True, text=True, check=True).stdout
    parents = {int(line.split()[0]): int(line.split()[1]) for line in listed.splitlines()}
    found = set(pids)
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found)


def test_a_mesh_starts_twice_keeps_its_data_and_leaves_nothing_when_its_supervisor_is_killed(
    folder: Path, whose: dict[str, Any], start: Callable[[], Mesh]
) -> None:
    state = folder / "state"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        first = start()
        status = first.status()
        assert status["running"]
        assert {part["health"] for part in status["processes"]} == {"serving"}
        first.cli("agent", "create", "Kept", "--prompt", "kept")
        second_supervisor = first.cli("up", check=False)
        assert second_supervisor.returncode == 1
        assert "already running" in second_supervisor.stderr
        pids = descendants(every_pid(first))
        assert {Path(f"/proc/{pid}").stat().st_uid for pid in every_pid(first)} == {whose.get("user", os.geteuid())}
        first.supervisor.send_signal(signal.SIGTERM)
        assert first.supervisor.wait(timeout=40) == 0
        assert not [pid for pid in pids if alive(pid)]
    assert not (state / "client.json").exists()
    began = time.monotonic()
    again = start()
    assert time.monotonic() - began < 60
    assert "Kept@1.0.0" in again.cli("agent", "list").stdout
    pids = descendants(every_pid(again))
    assert len(pids) > 11
    os.kill(again.supervisor.pid, signal.SIGKILL)
    again.supervisor.wait()
    wait_until(lambda: not [pid for pid in pids if alive(pid)], seconds=10)
    assert not again.status()["running"]


@pytest.mark.heavy
def test_taken_ports_are_no_obstacle(mesh: Mesh, folder: Path) -> None:
    """The mesh of the other tests holds the default ports, or others do."""
    beside = start_mesh(folder / "state")
    try:
        assert beside.edge != mesh.edge
        assert beside.cli("agent", "list").returncode == 0
    finally:
        beside.supervisor.send_signal(signal.SIGTERM)
        assert beside.supervisor.wait(timeout=40) == 0


def test_the_cli_says_what_is_wrong_in_one_sentence(mesh: Mesh, folder: Path) -> None:
    unknown = mesh.cli("run", "x", "--agents", "Zeus", check=False)
    assert (unknown.returncode, unknown.stderr.count("\n")) == (1, 1)
    assert "no agent Zeus" in unknown.stderr
    assert "agentnet agent list" in unknown.stderr
    nowhere = Mesh(folder / "none", mesh.supervisor).cli("agent", "list", check=False)
    assert nowhere.returncode == 1
    assert "agentnet up" in nowhere.stderr
    assert "Traceback" not in unknown.stderr + nowhere.stderr


def test_the_cli_runs_and_watches_a_session(mesh: Mesh) -> None:
    told = mesh.cli("run", "Name one risk of a single router", "--agents", "Hermes", "--mode", "single").stdout
    assert "Hermes" in told
    assert "ended: completed after 1 round ·" in told
    assert "$0.0000" in told
    session_id = told.rpartition("agentnet watch ")[2].split()[0]
    assert "ended: completed" in mesh.cli("watch", session_id, "--after", "3").stdout
    printed = mesh.cli("token", "--tenant", "theirs", "--role", "auditor").stdout.strip()
    claims = jwt.decode(printed, options={"verify_signature": False})
    assert (claims["tenant"], claims["roles"]) == ("theirs", ["auditor"])
    assert mesh.cli("version").stdout.startswith("agentnet ")


def test_status_tells_requests_and_percentiles_of_every_service(mesh: Mesh) -> None:
    measured = {part["name"]: part for part in mesh.status()["processes"]}
    orchestrator = measured["orchestrator"]
    assert orchestrator["requests"] > 0
    assert set(orchestrator["latency_ms"]) == {"p50", "p95", "p99"}
