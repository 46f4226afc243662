"""Servers that tests share: when one has died, no test waits for it, and the run ends and says which and why."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TOLD_BYTES = 1500
_needed: dict[int, tuple[subprocess.Popen[bytes], str, Path]] = {}


@contextmanager
def needed(process: subprocess.Popen[bytes], name: str, log: Path) -> Iterator[None]:
    """While the block runs, tests need this process; `log` has its last words."""
    _needed[process.pid] = process, name, log
    try:
        yield
    finally:
        del _needed[process.pid]


def death() -> str | None:
    """Which of them has died and what it said, or nothing."""
    for process, name, log in _needed.values():
        if (status := process.poll()) is not None:
            words = log.read_bytes()[-_TOLD_BYTES:].decode(errors="replace")
            return f"{name}, which tests share, has died with status {status}; its last words:\n{words}"
    return None
