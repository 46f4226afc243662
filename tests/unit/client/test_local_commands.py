"""The commands that start the local mesh and tell of it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from agentnet.cli import local, main

NAMES = ["model", "valkey", "postgres", "gateway", "orchestrator", "inference", "tools", "policy", "memory", "cost", "evaluation", "envoy"]  # fmt: skip


class Running:
    """A supervisor that has not ended."""

    def __init__(self, *_: Any, **__: Any) -> None:
        return

    def poll(self) -> None:
        return None


def told(*, ready: bool, count: int) -> dict[str, Any]:
    parts = [
        {
            "name": name,
            "health": "serving",
            "address": "127.0.0.1:50051",
            "pid": 123456,
            "restarts": 0,
            "requests": 12345,
        }
        | {"latency_ms": {"p50": 4.066666666666666, "p95": 72.5, "p99": 1205.0000000000002}}
        for name in NAMES[:count]
    ]
    return {
        "running": True,
        "ready": ready,
        "edge": "127.0.0.1:8080",
        "url": "http://127.0.0.1:8080",
        "state": "/x",
        "processes": parts,
    }


def test_up_detach_waits_for_the_whole_mesh_and_not_for_its_first_parts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AGENTNET_STATE", str(tmp_path))
    answers = [told(ready=False, count=3), told(ready=False, count=12), told(ready=True, count=12)]
    monkeypatch.setattr(local, "local_status", lambda: answers.pop(0))
    monkeypatch.setattr(local.subprocess, "Popen", Running)
    monkeypatch.setattr(local.time, "sleep", lambda _: None)

    local.detach(Console(file=io.StringIO()))

    assert answers == []


def test_status_fits_a_terminal_of_eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    page = io.StringIO()
    monkeypatch.setattr(main, "out", Console(file=page, width=80, highlight=False))
    main._print_status(told(ready=True, count=12))
    lines = page.getvalue().splitlines()

    assert [line.split()[0] for line in lines[2:]] == NAMES
    assert all("127.0.0.1:50051" in line and "serving" in line for line in lines[2:])
