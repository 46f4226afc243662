"""The file of requirements is true: every test it names exists. What is not covered is counted and printed."""

from __future__ import annotations

import ast
import re
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "tests" / "requirements.yaml"
ID = re.compile(r"(GW|OR|IN|TL|PO|ME|CO|SH|SDK|DB|DP|TS|DOC)-\d{2,3}")


@cache
def named_in(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / file).read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, functions))


def requirements() -> dict[str, list[str]]:
    data = yaml.safe_load(FILE.read_text())
    return {name: tests or [] for name, tests in data["requirements"].items()}


def total() -> int:
    return int(yaml.safe_load(FILE.read_text())["total"])


def test_every_requirement_has_a_well_formed_id() -> None:
    assert not [name for name in requirements() if not ID.fullmatch(name)]


def test_every_named_test_exists() -> None:
    missing = []
    for name, tests in requirements().items():
        for test in tests:
            file, _, function = test.partition("::")
            if not (ROOT / file).is_file() or function not in named_in(file):
                missing.append(f"{name}: {test}")
    assert not missing


def test_what_is_not_covered_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    covered = [name for name, tests in requirements().items() if tests]
    with capsys.disabled():
        sys.stdout.write(
            f"\nrequirements covered: {len(covered)} of {total()}; not yet covered: {total() - len(covered)}\n"
        )
    assert 0 < len(covered) <= total()
