"""Fair turns of the event loop: however many streams have tokens, new calls, health and money are served in between.

One process reads hundreds of upstreams. When more of them have something to say than the processor can carry, a turn
that served them all would take as long as a second, and whatever else happens takes several turns: accepting one call
takes gRPC four. So some streams are served, then some turns belong to everything else; the others wait, unread, and
have their tokens carried together afterwards.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

_SECONDS_A_TURN: Final = 0.004
_RELEASED_AT_ONCE: Final = 16
_TURNS_BETWEEN: Final = 3


class Turns:
    """Of one event loop. Whoever waits longest is first."""

    def __init__(self, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._began: float | None = None
        self._pause = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def crowded(self) -> bool:
        """Whether a stream that came now would have to wait."""
        if self._began is None:
            self._begin()
        return bool(self._waiting) or self._clock() - (self._began or 0) > _SECONDS_A_TURN

    async def wait(self) -> None:
        """Until it is the stream's turn."""
        if self._began is None:
            self._begin()
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        await turn

    def _begin(self) -> None:
        self._began = self._clock()
        asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        """The turn is over: another one, after a pause, serves who waited first."""
        if self._pause:
            self._pause -= 1
            asyncio.get_running_loop().call_soon(self._next)
            return
        self._began, released = None, 0
        while self._waiting and released < _RELEASED_AT_ONCE:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                released += 1
        if released:
            self._pause = _TURNS_BETWEEN
            self._begin()
