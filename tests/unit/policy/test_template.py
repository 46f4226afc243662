"""The template of a monitor in docs/policy.md is a monitor, as it stands there."""

from __future__ import annotations

import asyncio
import re
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import pytest

from services.policy.document import parse

_BLOCK = re.compile(r"(?:^        .*\n|^\n(?=        ))+", re.MULTILINE)


def test_the_template_in_the_docs_is_a_monitor_its_package_names_it_and_its_rule_uses_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    section = Path("docs/policy.md").read_text().partition("## A monitor of your own")[2].partition("\n## ")[0]
    module, package, bundle, _ = (textwrap.dedent(block) for block in _BLOCK.findall(section))
    made: dict[str, Any] = {}
    exec(module, made)
    (entry,) = tomllib.loads(package)["project"]["entry-points"]["agentnet.monitors"].items()
    monkeypatch.setattr("shared.monitors.plugin.installed", entry[0].__eq__)
    (rule,) = parse(bundle)

    monitor = made[entry[1].partition(":")[2]](rule.params)

    assert rule.params["plugin"] == entry[0]
    suspicion = asyncio.run(monitor.judge("THIS IS LOUD!"))
    assert suspicion.score > float(str(rule.params["threshold"]))
    assert asyncio.run(monitor.judge("Good day.")) is None
