"""What to try next when a model fails: pure decisions, no clock and no I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from services.inference.errors import ELSEWHERE, TRANSIENT, ContextTooLong
from services.inference.route import Target
from shared.errors import MeshError

_TRIES: Final = 3
_LONGEST_WAIT: Final = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Step:
    """Ask this target, after waiting."""

    target: Target
    wait: timedelta = timedelta()


class Course:
    """The way of one generation along its chain.

    Before anything was shown, a passing failure is waited out at the same model (never before its Retry-After, not at
    all when that is over 10 s), at most 3 tries; then the next model is asked. In mid-stream the next model goes on at
    once; the same one is asked again only when it is the last. `pinned` keeps to the first model and to what was shown.
    """

    def __init__(self, chain: Sequence[Target], *, pinned: bool, base: timedelta, jitter: Callable[[], float]) -> None:
        self._chain = list(chain)
        self._pinned = pinned
        self._base = base
        self._jitter = jitter
        self._tries = 1

    @property
    def target(self) -> Target:
        """Who is being asked."""
        return self._chain[0]

    def skip(self) -> Target | None:
        """The next model, the present one not being asked: its breaker is open. None when it is the last."""
        return self._advance()

    def after(self, failure: MeshError, *, shown: bool) -> Step | None:
        """What to do about a failure; None when it is the end."""
        if not isinstance(failure, ELSEWHERE) or (shown and self._pinned):
            return None
        if shown:
            return self._elsewhere(failure) or self._again(failure)
        return self._again(failure) or self._elsewhere(failure)

    def _again(self, failure: MeshError) -> Step | None:
        if not isinstance(failure, TRANSIENT) or self._tries >= _TRIES or self.target.free:
            return None
        backoff = self._base * 2 ** (self._tries - 1) * (0.5 + self._jitter() / 2)
        wait = max(failure.retry_after or timedelta(), backoff)
        if wait > _LONGEST_WAIT:
            return None
        self._tries += 1
        return Step(self.target, wait)

    def _elsewhere(self, failure: MeshError) -> Step | None:
        held = self.target.model.context_tokens
        while target := self._advance():
            roomier = not target.model.context_tokens or target.model.context_tokens > held
            if not isinstance(failure, ContextTooLong) or roomier:
                return Step(target)
        return None

    def _advance(self) -> Target | None:
        if len(self._chain) == 1 or (self._pinned and not self.target.free):
            return None
        self._chain.pop(0)
        self._tries = 1
        return self.target
