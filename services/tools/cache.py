"""Results of idempotent tools, given again while they are fresh."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from datetime import timedelta
from typing import Final, Generic, TypeVar

from shared.clock import Clock

ENTRIES: Final = 1024
Value = TypeVar("Value")


class Cache(Generic[Value]):
    """The least recently used goes first; nothing is older than its time."""

    def __init__(self, clock: Clock, *, entries: int = ENTRIES) -> None:
        self._clock = clock
        self._entries = entries
        self._held: OrderedDict[Hashable, tuple[timedelta, Value]] = OrderedDict()

    def get(self, key: Hashable) -> Value | None:
        found = self._held.get(key)
        if found is None:
            return None
        if found[0] <= self._clock.monotonic():
            del self._held[key]
            return None
        self._held.move_to_end(key)
        return found[1]

    def put(self, key: Hashable, value: Value, *, ttl: timedelta) -> None:
        self._held[key] = (self._clock.monotonic() + ttl, value)
        self._held.move_to_end(key)
        if len(self._held) > self._entries:
            self._held.popitem(last=False)
