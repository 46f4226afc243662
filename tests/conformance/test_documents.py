"""What the pages show as YAML can be copied into a file and used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from agentnet.client import TaskGraph

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHOWN = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE))
]


@pytest.mark.parametrize("block", SHOWN)
def test_what_is_shown_as_yaml_is_yaml(block: str) -> None:
    assert yaml.safe_load(block)


def test_the_graph_that_is_shown_runs_as_it_stands(tmp_path: Path) -> None:
    (shown,) = (block for param in SHOWN if "goal: A resilient edge" in (block := str(param.values[0])))
    (tmp_path / "graph.yaml").write_text(shown)
    graph = TaskGraph.from_file(tmp_path / "graph.yaml")
    graph.validate()
    assert graph.topological_sort() == [["risks"], ["judge"], ["alarm", "plan"]]
