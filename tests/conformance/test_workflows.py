"""What is run before a commit and on GitHub is what `make check` and `make test` are."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import check_jsonschema
import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = {path.stem: path for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))}
SCHEMA = Path(check_jsonschema.__file__).parent / "builtin_schemas" / "vendor" / "github-workflows.json"


def read(name: str) -> dict[str, Any]:
    """YAML 1.2's meaning, as GitHub reads it: `on` is a word."""
    found: dict[Any, Any] = yaml.safe_load(WORKFLOWS[name].read_text())
    return {"on" if key is True else key: value for key, value in found.items()}


def steps(name: str) -> list[dict[str, Any]]:
    return [step for job in read(name)["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_is_one_by_githubs_schema_and_may_only_read(name: str) -> None:
    jsonschema.Draft7Validator(json.loads(SCHEMA.read_text())).validate(read(name))
    assert read(name)["permissions"] == {"contents": "read"}
    assert all("timeout-minutes" in job for job in read(name)["jobs"].values())
    assert all(re.search(r"@v?\d", step["uses"]) for step in steps(name) if "uses" in step)


@pytest.mark.parametrize("name", ["lint", "test", "security"])
def test_it_runs_on_pushes_to_main_and_develop_and_on_pull_requests(name: str) -> None:
    assert read(name)["on"]["push"]["branches"] == ["main", "develop"]
    assert "pull_request" in read(name)["on"]


def test_lint_and_test_run_what_ci_runs_and_security_scans_code_and_supply_chain() -> None:
    assert [step["run"] for step in steps("lint") + steps("test") if "run" in step] == ["make check", "make test"]
    (scan,) = [step["run"] for step in steps("security") if "run" in step]
    assert re.match(r"pipx run bandit==[\d.]+ .*--recursive .*services shared deploy$", scan)
    (trivy,) = [step["with"] for step in steps("security") if "trivy" in step.get("uses", "")]
    assert (trivy["scan-type"], trivy["exit-code"], "vuln" in trivy["scanners"]) == ("fs", "1", True)


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ('"""One."""\n\nNUMBER: int = 1\n', ""),
        ('"""One."""\n\nNUMBER: int=1\n', "would be reformatted"),
        ('"""One."""\n\nimport os\n', "F401"),
        ('"""One."""\n\nNUMBER: int = "1"\n', "Incompatible types"),
    ],
    ids=["clean", "format", "lint", "types"],
)
def test_the_hook_stops_a_commit_that_lint_or_types_would_stop(tmp_path: Path, text: str, refused: str) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.ruff]\nlint.select = ["F"]\n')
    (tmp_path / "hooks").mkdir()
    shutil.copy(ROOT / "deploy" / "hooks" / "pre-commit", tmp_path / "hooks")
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "one.py").write_text(text)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    mine = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | {"PATH": path}
    who = ("-c", "user.name=one", "-c", "user.email=one@example.com", "-c", "core.hooksPath=hooks")

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ("git", *who, *words), cwd=tmp_path, env=mine, capture_output=True, text=True, check=False
        )

    assert git("init", "--quiet").returncode == 0
    assert git("add", "shared").returncode == 0
    done = git("commit", "--message", "one")
    assert (done.returncode == 0) is (not refused), done.stdout + done.stderr
    assert refused in done.stdout + done.stderr
