"""Trying again: exponential pauses with jitter, never sooner than asked for, under a breaker where there is one."""

from __future__ import annotations

import asyncio
import inspect
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeVar

from shared.clock import Clock, SystemClock
from shared.errors import MeshError, Unavailable
from shared.log import log

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Patience:
    """How often in all, and how long between: the pause doubles, and is drawn from its upper half."""

    attempts: int = 4
    first_pause: timedelta = timedelta(milliseconds=250)
    longest_pause: timedelta = timedelta(seconds=8)
    """Who asks for more than this is answered with the failure."""

    def pause(self, attempt: int, error: BaseException) -> float | None:
        """Seconds until the next attempt; None when there is none, or more is asked for than there is patience."""
        asked = error.retry_after if isinstance(error, MeshError) else None
        if attempt >= self.attempts or (asked and asked > self.longest_pause):
            return None
        drawn: float = min(self.longest_pause, self.first_pause * 2 ** (attempt - 1)).total_seconds()
        least = asked.total_seconds() if asked else 0.0
        return max(least, drawn * random.uniform(0.5, 1))  # noqa: S311 - spreads load, protects nothing


class Breaker(Protocol):
    """Stops calls to what fails."""

    def admits(self) -> bool:
        """Whether a call may be made now."""

    def failed(self) -> None:
        """A call failed."""

    def succeeded(self) -> None:
        """A call was answered."""


class CountingBreaker:
    """Closed; open after so many failures in a row; after a recovery time one call tries, and closes or opens it."""

    def __init__(
        self, *, failures: int = 5, recovery: timedelta = timedelta(seconds=30), clock: Clock | None = None
    ) -> None:
        self._threshold = failures
        self._recovery = recovery
        self._clock = clock or SystemClock()
        self._failures = 0
        self._tries_at: timedelta | None = None

    def admits(self) -> bool:
        if self._tries_at is None:
            return True
        now = self._clock.monotonic()
        if now < self._tries_at:
            return False
        self._tries_at = now + self._recovery  # one call tries; if it never reports, another does after that
        return True

    def failed(self) -> None:
        self._failures += 1
        if self._failures >= self._threshold:
            self._tries_at = self._clock.monotonic() + self._recovery

    def succeeded(self) -> None:
        self._failures, self._tries_at = 0, None


def with_retry(
    *on: type[Exception],
    patience: Patience | None = None,
    breaker: Breaker | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    sleep_sync: Callable[[float], None] = time.sleep,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Calls a function, of either colour, again when it raises one of `on`. Only for what may be done twice.

    Raises its last failure; Unavailable without calling it while the breaker is open.
    """
    course = _Course(on, patience or Patience(), breaker)

    def decorate(call: Callable[P, R]) -> Callable[P, R]:
        @wraps(call)
        async def again(*args: P.args, **kwargs: P.kwargs) -> Any:
            for attempt in course.attempts():
                try:
                    found = await call(*args, **kwargs)  # type: ignore[misc] # it is a coroutine function
                except on as error:
                    await sleep(course.pause(call, attempt, error))
                else:
                    course.succeeded()
                    return found
            return None

        @wraps(call)
        def again_sync(*args: P.args, **kwargs: P.kwargs) -> Any:
            for attempt in course.attempts():
                try:
                    found = call(*args, **kwargs)
                except on as error:
                    sleep_sync(course.pause(call, attempt, error))
                else:
                    course.succeeded()
                    return found
            return None

        return again if inspect.iscoroutinefunction(call) else again_sync  # type: ignore[return-value] # either colour

    return decorate


@dataclass(frozen=True, slots=True)
class _Course:
    on: tuple[type[Exception], ...]
    patience: Patience
    breaker: Breaker | None

    def attempts(self) -> Iterator[int]:
        """1, 2, 3 … as long as the breaker lets calls through."""
        for attempt in range(1, self.patience.attempts + 1):
            if self.breaker and not self.breaker.admits():
                raise Unavailable("it failed too often and is left alone for a while")
            yield attempt

    def pause(self, call: Callable[..., object], attempt: int, error: BaseException) -> float:
        """Seconds until the next attempt. Raises the error when it was the last."""
        if self.breaker:
            self.breaker.failed()
        seconds = self.patience.pause(attempt, error)
        if seconds is None:
            raise error
        reason = error.reason_name if isinstance(error, MeshError) else type(error).__name__
        log.info("retry.again", what=call.__qualname__, reason=reason, attempt=attempt, seconds=round(seconds, 3))
        return seconds

    def succeeded(self) -> None:
        if self.breaker:
            self.breaker.succeeded()
