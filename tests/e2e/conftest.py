"""The real mesh, once for all tests here: Postgres, Valkey, the model, seven services and Envoy, as a user starts them."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agentnet.client import AgentNet, AgentNetError
from deploy.local.state import State
from deploy.local.tokens import mint

ROOT = Path(__file__).resolve().parents[2]
# The real model's turns are real, and no longer than a test needs.
SHORT = {"AGENTNET_ORCHESTRATOR_MAX_OUTPUT_TOKENS": "24"}
CLI = (sys.executable, "-m", "agentnet.cli.main")
JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Mesh:
    """A mesh in a state folder of its own."""

    state: Path
    supervisor: subprocess.Popen[bytes]

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "AGENTNET_STATE": str(self.state)}

    def cli(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            (*CLI, *arguments), env=self.environment, capture_output=True, text=True, check=check, timeout=90, cwd=ROOT
        )

    def status(self) -> dict[str, Any]:
        return json.loads(self.cli("status", "--json", check=False).stdout)

    def mesh_file(self) -> dict[str, Any]:
        return json.loads((self.state / "mesh.json").read_text())

    def process(self, name: str) -> dict[str, Any]:
        return next(part for part in self.mesh_file()["processes"] if part["name"] == name)

    def token(self, *, role: str = "admin", ttl_seconds: int = 3600, **whose: str) -> str:
        """What `agentnet token` prints, without starting it."""
        return mint(State(self.state), roles=(role,), ttl=timedelta(seconds=ttl_seconds), **whose)

    @property
    def edge(self) -> str:
        return str(self.mesh_file()["edge"])

    def logs(self) -> str:
        return "".join(file.read_text(errors="replace") for file in (self.state / "logs").glob("*.log"))


def start_mesh(state: Path, **whose: Any) -> Mesh:
    environment = {**SHORT, **os.environ, "AGENTNET_STATE": str(state)} | ({"HOME": str(state.parent)} if whose else {})
    told = state.with_suffix(".log")
    with told.open("wb") as log:
        supervisor = subprocess.Popen((*CLI, "up"), env=environment, cwd=ROOT, stdout=log, stderr=log, **whose)
    mesh = Mesh(state, supervisor)
    wait_until(lambda: (state / "client.json").exists() or supervisor.poll() is not None, seconds=120)
    assert supervisor.poll() is None, told.read_text()
    return mesh


def wait_until(true, *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        with Path(f"/proc/{pid}/stat").open() as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="session")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    running = start_mesh(tmp_path_factory.mktemp("mesh") / "state")
    yield running
    running.supervisor.send_signal(signal.SIGTERM)
    running.supervisor.wait(timeout=40)


@pytest.fixture
async def client(mesh: Mesh) -> AsyncIterator[AgentNet]:
    credential = json.loads((mesh.state / "client.json").read_text())["token"]
    async with AgentNet.connect(mesh.edge, credential=credential) as connected:
        yield connected


class Rest:
    """REST calls with a token."""

    def __init__(self, mesh: Mesh, credential: str | None) -> None:
        self._base = f"http://{mesh.edge}"
        self._headers = {"authorization": f"Bearer {credential}"} if credential else {}

    async def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        given = {**self._headers, **headers}
        async with aiohttp.ClientSession() as session:
            data = io.BytesIO(json.dumps(body).encode()) if body is not None else None
            sent = JSON | given if data else given
            async with session.request(method, self._base + path, data=data, headers=sent) as answer:
                text = await answer.text()
                return answer.status, json.loads(text) if text else None


@pytest.fixture
def credential(mesh: Mesh) -> str:
    return str(json.loads((mesh.state / "client.json").read_text())["token"])


@pytest.fixture
def rest(mesh: Mesh, credential: str) -> Rest:
    return Rest(mesh, credential)


def reason_of(body: Any) -> str:
    return next(detail["reason"] for detail in body["details"] if detail["@type"].endswith("ErrorInfo"))


def field_of(body: Any) -> str:
    bad = next(detail for detail in body["details"] if detail["@type"].endswith("BadRequest"))
    return str(bad["field_violations"][0]["field"])


async def refused(work: Any) -> AgentNetError:
    with pytest.raises(AgentNetError) as raised:
        await work
    return raised.value
