"""The circuit breaker: what fails again and again is left alone for a while, then tried with one call."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from shared.clock import Clock

FAILURES: Final = 5
RECOVERY: Final = timedelta(seconds=30)


class Circuit(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(slots=True)
class _Line:
    failures: int = 0
    opened_at: timedelta | None = None
    trying: bool = False


class Breaker:
    """One circuit a key, in this replica."""

    def __init__(self, clock: Clock, *, failures: int = FAILURES, recovery: timedelta = RECOVERY) -> None:
        self._clock = clock
        self._failures = failures
        self._recovery = recovery
        self._lines: dict[Hashable, _Line] = {}

    def circuit(self, key: Hashable) -> Circuit:
        line = self._lines.get(key)
        if line is None or line.opened_at is None:
            return Circuit.CLOSED
        return Circuit.OPEN if self._left(line) > timedelta() else Circuit.HALF_OPEN

    def wait(self, key: Hashable) -> timedelta | None:
        """None when a call may go; it then owes `succeeded`, `failed` or `abandoned`. Otherwise how long to wait."""
        line = self._lines.get(key)
        if line is None or line.opened_at is None:
            return None
        if (left := self._left(line)) > timedelta():
            return left
        if line.trying:
            return timedelta(seconds=1)
        line.trying = True
        return None

    def succeeded(self, key: Hashable) -> None:
        self._lines.pop(key, None)

    def failed(self, key: Hashable) -> None:
        line = self._lines.setdefault(key, _Line())
        line.failures += 1
        if line.failures >= self._failures:
            line.opened_at, line.trying = self._clock.monotonic(), False

    def abandoned(self, key: Hashable) -> None:
        """The call says nothing about the other side."""
        if line := self._lines.get(key):
            line.trying = False

    def _left(self, line: _Line) -> timedelta:
        assert line.opened_at is not None  # noqa: S101 - asked of open lines only
        return line.opened_at + self._recovery - self._clock.monotonic()
