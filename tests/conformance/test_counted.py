"""TS-10 asks for so many tests of three subjects: they are counted, a function once however often it is parametrised."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

import pytest

TESTS: Final = Path(__file__).resolve().parents[1]
# Tracing is the log that every act of a session is an event of, who reads it, and the traces of calls with their exporter.
SUBJECTS: Final = {
    "tracing": (29, (
        "service/shared/test_trace.py", "unit/shared/test_log.py", "unit/orchestrator/test_watch.py", "unit/orchestrator/test_histories.py",
        "contract/orchestrator/test_history.py", "service/orchestrator/test_histories.py", "contract/inference/test_langfuse.py",
    )),
    "guardrails": (49, ("unit/monitors/test_guardrails.py", "unit/monitors/test_stream.py", "unit/monitors/test_windowed.py", "service/policy")),
    "record and replay": (22, (
        "unit/inference/test_replay.py", "contract/inference/test_replay_speed.py", "unit/orchestrator/replays",
    )),
}  # fmt: skip


def judging_in(place: str) -> set[str]:
    """The test functions of a file or a folder that assert or expect something."""
    path = TESTS / place
    assert path.exists(), place
    files = sorted(path.glob("test_*.py")) if path.is_dir() else [path]
    return {
        f"{file.relative_to(TESTS)}::{node.name}"
        for file in files
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_") and judges(node)
    }


def judges(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether it can fail by more than an exception: it asserts, raises as expected, or calls what asserts by name."""
    return any(
        isinstance(node, ast.Assert)
        or (isinstance(node, ast.Attribute) and node.attr in ("raises", "fail"))
        or (isinstance(node, ast.Name) and node.id.startswith(("assert_", "refused", "denied")))
        for node in ast.walk(function)
    )


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_subject_has_the_tests_it_is_owed(subject: str) -> None:
    least, places = SUBJECTS[subject]
    found = set[str]().union(*map(judging_in, places))
    assert len(found) >= least, f"{subject}: {len(found)} of {least}"
