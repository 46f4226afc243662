"""The template of a monitor in docs/policy.md is a monitor, as it stands there."""

from __future__ import annotations

import asyncio
import importlib
import re
import textwrap
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from services.policy.callbacks import load_callbacks
from services.policy.document import parse
from services.policy.risks import Enforced

NOW = datetime(2026, 1, 1, tzinfo=UTC)
_BLOCK = re.compile(r"(?:^        .*\n|^\n(?=        ))+", re.MULTILINE)


def test_the_template_in_the_docs_is_a_monitor_its_package_names_it_and_its_rule_uses_it() -> None:
    section = Path("docs/policy.md").read_text().partition("## A monitor of your own")[2].partition("\n## ")[0]
    module, package, bundle, _ = (textwrap.dedent(block) for block in _BLOCK.findall(section))
    made: dict[str, Any] = {}
    exec(module, made)
    (entry,) = tomllib.loads(package)["project"]["entry-points"]["agentnet.monitors"].items()
    (rule,) = parse(bundle)

    monitor = made[entry[1].partition(":")[2]](rule.params)

    assert rule.params["plugin"] == entry[0]
    suspicion = asyncio.run(monitor.judge("THIS IS LOUD!"))
    assert suspicion.score > float(str(rule.params["threshold"]))
    assert asyncio.run(monitor.judge("Good day.")) is None


async def test_a_package_s_action_is_found_by_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pager.py").write_text("told = []\nasync def page(tenant, action): told.append((tenant, action))\n")
    (tmp_path / "pager-1.dist-info").mkdir()
    (tmp_path / "pager-1.dist-info" / "METADATA").write_text("Name: pager\nVersion: 1\n")
    (tmp_path / "pager-1.dist-info" / "entry_points.txt").write_text("[agentnet.enforcement]\npage = pager:page\n")
    monkeypatch.syspath_prepend(tmp_path)
    action = Enforced("enf_1", "pages", "memory_bloat", "callback:page", "agent", "Zeus", 2.0, NOW, NOW)

    await load_callbacks()["page"]("acme", action)

    assert importlib.import_module("pager").told == [("acme", action)]
