"""What parts of the embedded mesh inherit: nobody has a secret that is not its own."""

from __future__ import annotations

import pytest

from deploy.local.parts import _environment

OWN = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AGENTNET_ORCHESTRATOR_CHECKPOINTS": "s3://runs/mesh"}


@pytest.fixture(autouse=True)
def given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**OWN, "OTHER_API_KEY": "c"}.items():
        monkeypatch.setenv(name, value)


def test_a_service_that_keeps_things_in_s3_has_the_keys_to_it_and_no_others() -> None:
    found = _environment(service="orchestrator")
    assert OWN.items() <= found.items()
    assert "OTHER_API_KEY" not in found


@pytest.mark.parametrize("service", ["tools", ""])
def test_who_keeps_nothing_there_has_none(service: str) -> None:
    assert not {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} & _environment(service=service).keys()


def test_nobody_has_them_while_nothing_is_kept_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTNET_ORCHESTRATOR_CHECKPOINTS", "postgres")
    assert "AWS_SECRET_ACCESS_KEY" not in _environment(service="orchestrator")
