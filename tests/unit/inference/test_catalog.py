"""The catalogue is judged whole, before anything is served; faults name their place and never show a key."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from services.inference.catalog import Ability, CatalogInvalid, Kind, checked, read_catalog

GOOD: dict[str, Any] = {
    "providers": {
        "openai": {"kind": "openai", "api_key": "env:OPENAI_API_KEY"},
        "eu": {"kind": "azure", "base_url": "https://eu.example", "api_version": "2024-10-21", "api_key": "file:/key"},
    },
    "models": {
        "gpt-4o": {"provider": "openai", "abilities": ["image"], "fallback": ["gpt-4o-eu"]},
        "gpt-4o-eu": {"provider": "eu", "model": "my-deployment", "timeouts": {"first_token": "20s", "idle": "1.5s"}},
    },
    "default": "gpt-4o",
}


def with_changes(path: str, value: Any) -> dict[str, Any]:
    """GOOD with one place changed; the path's steps are parted by slashes."""
    data: dict[str, Any] = {part: {**held} if isinstance(held, dict) else held for part, held in GOOD.items()}
    *steps, last = path.split("/")
    place = data
    for step in steps:
        place[step] = {**place.get(step, {})}
        place = place[step]
    place[last] = value
    return data


def test_a_good_catalogue_is_read() -> None:
    catalog = checked(GOOD)
    assert catalog.providers["eu"].kind is Kind.AZURE
    assert catalog.models["gpt-4o"].abilities == {Ability.IMAGE}
    assert catalog.models["gpt-4o-eu"].timeouts.first_token == timedelta(seconds=20)
    assert catalog.models["gpt-4o-eu"].timeouts.idle == timedelta(milliseconds=1500)


FAULTS = {
    "a key inline": ("providers/openai/api_key", "sk-very-secret", "providers.openai.api_key"),
    "an unknown kind": ("providers/openai/kind", "oracle", "providers.openai.kind"),
    "azure without a version": ("providers/eu/api_version", "", "api_version is required for azure"),
    "azure without an address": ("providers/eu/base_url", "", "base_url is required for azure"),
    "an address that is none": ("providers/eu/base_url", "eu.example", "providers.eu.base_url"),
    "a plug-in without a name": ("providers/openai/kind", "plugin", "plugin names the entry point"),
    "a word too many": ("providers/openai/colour", "red", "providers.openai.colour"),
    "an unknown provider": ("models/gpt-4o/provider", "nobody", "there is no provider nobody"),
    "an unknown fallback": ("models/gpt-4o/fallback", ["gpt-9"], "there is no model gpt-9"),
    "a model that falls back on itself": ("models/gpt-4o/fallback", ["gpt-4o"], "it names itself"),
    "an unknown default": ("default", "gpt-9", "default: there is no model gpt-9"),
    "a time without a unit": ("models/gpt-4o/timeouts", {"idle": "20"}, "must be a time like 500ms, 20s or 5m"),
    "no time": ("models/gpt-4o/timeouts", {"idle": "0s"}, "models.gpt-4o.timeouts.idle"),
    "negative context": ("models/gpt-4o/context_tokens", -1, "models.gpt-4o.context_tokens"),
}


@pytest.mark.parametrize(("path", "value", "said"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_is_named_with_its_place(path: str, value: Any, said: str) -> None:
    with pytest.raises(CatalogInvalid) as raised:
        checked(with_changes(path, value))
    assert said in str(raised.value)
    assert "sk-very-secret" not in str(raised.value)


def test_all_faults_are_told_at_once() -> None:
    data = with_changes("providers/openai/kind", "oracle")
    data["models"]["gpt-4o"] = {**data["models"]["gpt-4o"], "context_tokens": -1}
    with pytest.raises(CatalogInvalid) as raised:
        checked(data)
    assert len(str(raised.value).splitlines()) == 2


FILES = {
    "missing": (None, "cannot be read"),
    "not YAML": ("providers: [", "line 1"),
    "a list": ("- a\n- b\n", "must hold providers and models"),
}


@pytest.mark.parametrize(("text", "said"), FILES.values(), ids=FILES.keys())
def test_a_file_that_is_none_is_told(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "catalog.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(CatalogInvalid, match=said):
        read_catalog(path)


def test_the_catalogues_of_the_docs_are_valid_as_they_stand_there(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "inference.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "catalog.yaml").write_text("".join(blocks))
    data = read_catalog(tmp_path / "catalog.yaml")
    data["providers"] |= {"built-in": {"kind": "synthetic"}}
    data["models"] |= {name: {"provider": "built-in"} for name in ("synthetic", "smollm2-135m")}
    found = checked(data)
    assert found.providers["azure-eu"].api_version == "2024-10-21"
    assert found.media
