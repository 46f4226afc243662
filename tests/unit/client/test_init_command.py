"""`agentnet init`: what it makes is whole, checked, and takes nothing's place."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agentnet.cli import main
from agentnet.client import AgentNetError
from services.orchestrator.agents import read_agents
from services.orchestrator.evaluation.document import read as read_suite

MADE = {"README.md", "agents.yaml", "run.py", "suite.yaml", "tests/conftest.py", "tests/test_team.py"}


@pytest.fixture(autouse=True)
def _no_mesh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTNET_STATE", str(tmp_path / "none"))
    monkeypatch.delenv("AGENTNET_ADDRESS", raising=False)


def test_a_project_is_whole_and_what_it_names_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "team"
    told = CliRunner().invoke(main.app, ["init", str(folder)])
    assert told.exit_code == 0, told.output
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == MADE
    assert "agentnet up" in told.output
    agents = {agent.name for agent in read_agents(folder / "agents.yaml")}
    suite = read_suite((folder / "suite.yaml").read_text())
    assert {agent for scenario in suite.scenarios for agent in scenario.agents} == agents
    for program in folder.rglob("*.py"):
        ast.parse(program.read_text())


def test_what_is_there_stays_and_is_named(tmp_path: Path) -> None:
    (tmp_path / "agents.yaml").write_text("mine")
    told = CliRunner().invoke(main.app, ["init", str(tmp_path)])
    assert isinstance(told.exception, AgentNetError)
    assert "agents.yaml would be replaced" in told.exception.message
    assert [path.name for path in tmp_path.iterdir()] == ["agents.yaml"]
    assert (tmp_path / "agents.yaml").read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told = CliRunner().invoke(main.app, ["init", str(tmp_path / "file" / "team")])
    assert isinstance(told.exception, AgentNetError)
    assert "Not a directory" in told.exception.message
