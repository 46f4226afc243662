"""How often a caller may call a tool: a window of a minute that slides, kept in this replica."""

from __future__ import annotations

from collections import deque
from datetime import timedelta
from typing import Final

from shared.clock import Clock

_WINDOW: Final = timedelta(minutes=1)
_MANY_CALLERS: Final = 10_000

Caller = tuple[str, str, str]


class Rates:
    """The calls of the last minute, by tenant, subject and tool."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._calls: dict[Caller, deque[timedelta]] = {}

    def take(self, caller: Caller, *, per_minute: int) -> timedelta | None:
        """Counts a call. When the minute is full: counts nothing and says how long until there is room."""
        if not per_minute:
            return None
        now = self._clock.monotonic()
        calls = self._calls.setdefault(caller, deque())
        while calls and calls[0] <= now - _WINDOW:
            calls.popleft()
        if len(calls) >= per_minute:
            return calls[0] + _WINDOW - now
        calls.append(now)
        self._forget_the_quiet(now)
        return None

    def _forget_the_quiet(self, now: timedelta) -> None:
        if len(self._calls) > _MANY_CALLERS:
            self._calls = {caller: calls for caller, calls in self._calls.items() if calls[-1] > now - _WINDOW}
