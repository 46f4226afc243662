"""What each part of the local mesh is given of the environment it is started in."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.local import parts
from deploy.local.state import State


@pytest.mark.parametrize(
    ("service", "name", "given"),
    [
        ("tools", "AGENTNET_TOOLS_SECRETS", True),
        ("cost", "AGENTNET_COST_TOKEN_SPIKE_FLOOR", True),
        ("cost", "AGENTNET_TOOLS_SECRETS", False),
        ("inference", "OPENAI_API_KEY", True),
        ("tools", "OPENAI_API_KEY", False),
        ("memory", "AGENTNET_LOG_LEVEL", True),
    ],
)
def test_a_service_gets_its_own_settings_and_no_other_s_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, service: str, name: str, given: bool
) -> None:
    monkeypatch.setenv(name, "set")
    state = State(tmp_path / "state")
    state.prepare()
    ports = {
        part: 1024 + place
        for place, part in enumerate((*parts.SERVICES, "postgres", "valkey", "internal", "edge", "model"))
    }
    plan = parts.Plan(state, ports)
    assert (parts.service(plan, service).environment.get(name) == "set") is given


def test_the_operators_path_comes_after_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sinks, hooks and middleware of their own are found there."""
    state = State(tmp_path)
    state.prepare()
    plan = parts.Plan(state, dict.fromkeys((*parts.SERVICES, "postgres", "valkey", "internal", "edge", "model"), 1))
    monkeypatch.setenv("PYTHONPATH", "/operators/own")
    ours, *others = parts.service(plan, "gateway").environment["PYTHONPATH"].split(":")
    assert (ours, others[-1]) == (str(parts.ROOT), "/operators/own")
