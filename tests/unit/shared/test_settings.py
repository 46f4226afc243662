"""Settings: where they come from and what is said when they are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.cost.settings import CostSettings
from shared.settings import MeshSettings


@pytest.fixture(autouse=True)
def needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("LOG_LEVEL", "ENVIRONMENT", "DRAIN_GRACE"):
        monkeypatch.delenv(f"AGENTNET_{name}", raising=False)
    monkeypatch.setenv("AGENTNET_LISTEN", "127.0.0.1:1")
    monkeypatch.setenv("AGENTNET_POSTGRES_DSN", "postgresql://u:hidden@h/d")
    monkeypatch.setenv("AGENTNET_IDENTITY_KEYS", "keys")


def test_the_environment_wins_over_dotenv_and_it_over_the_overlay(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AGENTNET_ENVIRONMENT", "prod")
    assert MeshSettings.load().log_level == "WARNING"
    (tmp_path / ".env").write_text("AGENTNET_LOG_LEVEL=ERROR\n")
    assert MeshSettings.load().log_level == "ERROR"
    monkeypatch.setenv("AGENTNET_LOG_LEVEL", "DEBUG")
    assert MeshSettings.load().log_level == "DEBUG"


def test_a_services_own_setting_wins_over_the_meshs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTNET_POSTGRES_POOL", "3")
    monkeypatch.setenv("AGENTNET_COST_POSTGRES_POOL", "5")
    assert CostSettings.load().postgres_pool == 5
    assert MeshSettings.load().postgres_pool == 3


def test_a_bad_setting_is_named_in_one_sentence_and_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AGENTNET_LISTEN", "nowhere")
    monkeypatch.delenv("AGENTNET_IDENTITY_KEYS")
    with pytest.raises(SystemExit) as raised:
        MeshSettings.load()
    said = capsys.readouterr().err
    assert raised.value.code == 2
    assert "bad setting AGENTNET_LISTEN" in said
    assert "bad setting AGENTNET_IDENTITY_KEYS: Field required" in said


def test_a_secret_is_not_shown() -> None:
    assert "hidden" not in repr(MeshSettings.load())
