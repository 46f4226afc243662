"""Watching a log: the same bytes for every reader, from any place, live to the end, without a gap."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from agentnet.orchestrator.v1 import event_pb2
from services.orchestrator.errors import SequenceOutOfRange, SessionNotFound
from services.orchestrator.store import Entry, LogTail, SessionStore

_PAGE: Final = 500


class Watcher:
    """Reads the live tail while it follows without a gap, and the committed log where it does not."""

    def __init__(self, store: SessionStore, tail: LogTail, *, poll: timedelta) -> None:
        self._store = store
        self._tail = tail
        self._poll = poll.total_seconds()

    async def watch(
        self, tenant: str, session_id: str, *, after: int, heartbeat: timedelta
    ) -> AsyncGenerator[Entry | None, None]:
        """Events after a sequence to the end of the session; None as a heartbeat.

        Raises SessionNotFound, SequenceOutOfRange when the log ends before `after`, and Unavailable when only the lost
        tail could tell.
        """
        if await self._over(tenant, session_id, after):
            return
        loop = asyncio.get_running_loop()
        heard_at = loop.time()
        with self._tail.woken(tenant, session_id) as woken, _waking(woken, self._poll) as net:
            while True:
                woken.clear()
                net.looked_at = loop.time()
                entries, more = await self._next(tenant, session_id, after)
                for entry in entries:
                    yield entry
                    after = entry.sequence
                    if _is_last(entry):
                        return
                if entries:
                    heard_at = loop.time()
                if more:
                    continue
                if loop.time() - heard_at >= heartbeat.total_seconds():
                    heard_at = loop.time()
                    yield None
                await woken.wait()

    async def _next(self, tenant: str, session_id: str, after: int) -> tuple[list[Entry], bool]:
        """What follows, and whether to look again at once: a live tail that was read to its end says when it grows."""
        live = await self._tail.read(tenant, session_id, after)
        if live:
            return list(live), len(live) >= _PAGE
        committed = await self._store.read(tenant, session_id, after, limit=_PAGE)
        return list(committed), bool(committed)

    async def _over(self, tenant: str, session_id: str, after: int) -> bool:
        """Whether the log ends there for good. Raises what watch raises."""
        session = await self._store.find(tenant, session_id)
        if session is None:
            raise SessionNotFound(f"no session {session_id}", session_id=session_id)
        last = session.last_sequence
        if after > last and not await self._tail.holds(tenant, session_id, after):
            raise SequenceOutOfRange(
                f"the log ends at {last}", field="after_sequence", session_id=session_id, last_sequence=str(last)
            )
        return session.HasField("end_time") and after == last


def _is_last(entry: Entry) -> bool:
    if entry.kind:
        return entry.kind == "session_finished"
    return event_pb2.SessionEvent.FromString(entry.payload).HasField("session_finished")


@dataclass(slots=True)
class _Net:
    """Under notifications: wakes a reader that has not looked for a while. One timer a while instead of one a wait."""

    woken: asyncio.Event
    seconds: float
    looked_at: float
    timer: asyncio.TimerHandle | None = None

    def spread(self) -> None:
        loop = asyncio.get_running_loop()
        due = self.looked_at + self.seconds
        if due <= loop.time():
            self.woken.set()
            due = loop.time() + self.seconds
        self.timer = loop.call_at(due, self.spread)


@contextmanager
def _waking(woken: asyncio.Event, seconds: float) -> Iterator[_Net]:
    net = _Net(woken, seconds, asyncio.get_running_loop().time())
    net.spread()
    try:
        yield net
    finally:
        if net.timer:
            net.timer.cancel()
