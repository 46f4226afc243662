"""The Python client and the command line work on logs of a served orchestrator."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agentnet.cli.main import app
from agentnet.client import AgentNet, AgentNetError
from agentnet.client.transport import Transport
from services.orchestrator.store import Entry
from tests.service.orchestrator.conftest import Mesh
from tests.service.orchestrator.test_graph_client import Admitted
from tests.support.orchestrator import TENANT

Command = Callable[..., Any]


@pytest.fixture
async def source(mesh: Mesh) -> str:
    async with AgentNet(Transport(Admitted(mesh.address, mesh.me()[0][1]))) as client:
        session = await client.sessions.start("Failover", agents=["Athena", "Apollo"], max_rounds=2, convergence=False)
        async for _ in client.sessions.watch(session.id):
            pass
    return session.id


@pytest.fixture
def command(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command in a thread: commands have an event loop of their own."""
    target = Admitted(mesh.address, mesh.me()[0][1])
    monkeypatch.setattr("agentnet.client.mesh.find_target", lambda *_: target)

    async def run(*words: str) -> tuple[int, str]:
        assert threading.current_thread() is threading.main_thread()
        found = await asyncio.to_thread(CliRunner().invoke, app, list(words))
        return found.exit_code, found.output

    return run


async def test_a_log_is_replayed_forked_and_compared(mesh: Mesh, command: Command, source: str) -> None:
    code, said = await command("replay", source)
    assert code == 0
    assert "identical" in said

    words = ("--at", "2", "--model", "other", "--prompt", "*=Be brief.", "--agent", "Apollo=Hermes")
    code, said = await command("fork", source, *words)
    assert code == 0
    fork = re.findall(r"forked (ses_\w+)", said)[0]
    async with AgentNet(Transport(Admitted(mesh.address, mesh.me()[0][1]))) as client:
        async for _ in client.sessions.watch(fork):
            pass
    code, said = await command("diff", source, fork)
    assert code == 0
    assert "1 turns in common" in said
    assert "Apollo@1.0.0 / Hermes@1.0.0" in said


async def test_an_audit_shows_the_session_and_finds_what_was_done_to_its_log(
    mesh: Mesh, command: Command, source: str
) -> None:
    code, said = await command("audit", "show", source)
    assert code == 0
    assert "the log is intact" in said
    assert "Athena has one idea about it." in said
    assert (await command("audit", "verify", source))[0] == 0

    log = mesh.world.store._kept[TENANT, source].log
    log[3] = Entry(4, log[3].kind, log[3].payload + b"\x2a\x01x")

    code, said = await command("audit", "verify", source)
    assert code == 1
    assert "edited at event 4" in said


async def test_a_session_is_carried_away_and_taken_in(command: Command, source: str, tmp_path: Path) -> None:
    file = tmp_path / "session.json"
    assert (await command("export", source, str(file)))[0] == 0
    code, said = await command("import", str(file))
    assert code == 0
    assert "taken in as ses_" in said

    file.write_text('{"schema_version": 1, "sesion": {}}')
    code, said = await command("import", str(file))
    assert code == 2
    assert "sesion" in said


async def test_a_wrong_pair_is_named(command: Command) -> None:
    code, said = await command("fork", "ses_1", "--agent", "Apollo")
    assert code == 2
    assert "--agent takes NAME=" in said


async def test_what_is_not_there_is_an_error_of_the_client(mesh: Mesh) -> None:
    async with AgentNet(Transport(Admitted(mesh.address, mesh.me()[0][1]))) as client:
        with pytest.raises(AgentNetError, match="no session ses_none"):
            await client.histories.replay("ses_none")
