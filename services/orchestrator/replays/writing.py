"""A session's log while it is written again: its clock, its ids, the signals that reached it, who writes when."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from google.protobuf.message import Message

from agentnet.orchestrator.v1 import event_pb2
from services.orchestrator.leases_memory import MemoryLeaseStore
from services.orchestrator.record import SessionLog
from services.orchestrator.replays.cassette import Cassette, writer
from services.orchestrator.store import Entry, Lease, LogTail, SessionStore, Signal
from services.orchestrator.store_memory import MemorySessionStore
from shared.clock import Clock
from shared.identity import Principal

_SIGNALS: Final = ("signal_received", "input_given", "message_injected")

Event = event_pb2.SessionEvent


class ReplayClock:
    """Tells the time the log has next."""

    def __init__(self, cassette: Cassette) -> None:
        self._cassette = cassette

    def now(self) -> datetime:
        event = self._cassette.following or self._cassette.log[-1]
        return event.time.ToDatetime(UTC)

    def monotonic(self) -> timedelta:
        return self.now() - self._cassette.log[0].time.ToDatetime(UTC)


class ReplayIds:
    """Gives the log's ids again, each kind in its order."""

    def __init__(self, cassette: Cassette) -> None:
        self._known: dict[str, deque[str]] = defaultdict(deque)
        used = {found for event in cassette.replayed for found in _ids(event)}
        for found in dict.fromkeys(found for event in cassette.log for found in _ids(event)):
            if found not in used:
                self._known[found.partition("_")[0]].append(found)

    def new(self, prefix: str) -> str:
        known = self._known[prefix]
        return known.popleft() if known else f"{prefix}_beyond_the_log"


class ReplayLog(SessionLog):
    """A session's log as it is written again: each event must be the one that was."""

    def __init__(self, lease: Lease, store: SessionStore, tail: LogTail, clock: Clock, *, cassette: Cassette) -> None:
        super().__init__(lease, store, tail, clock)
        self._cassette = cassette

    def now(self) -> datetime:
        return self.clock.now()

    @property
    def signals_due(self) -> bool:
        following = self._cassette.following
        return following is not None and following.HasField("signal_received")

    async def went_on(self) -> bool:
        """Whether turns at work had to write first: the driver acts where the log has an event of its own."""
        before = self._cassette.position
        await self._cassette.until(_by_driver)
        return self._cassette.position > before

    async def show(self, events: Sequence[Event]) -> float:
        await self._due(events)
        return await super().show(events)

    async def tell(self, events: Sequence[Event]) -> None:
        await self._due(events)
        self.stage(events)

    async def commit(self, events: Sequence[Event] = (), *, release: bool = False) -> None:
        await self._due(events)
        await super().commit(events, release=release)

    def stamp(self, event: Event) -> None:
        super().stamp(event)
        self._cassette.take(event)

    async def _due(self, events: Sequence[Event]) -> None:
        """Lets each writer wait for its place. What is not in the log at all comes out as a difference."""
        following = self._cassette.following
        if not events or following is None or events[0].HasField("session_taken_over"):
            return
        own = writer(events[0])
        await self._cassette.until(lambda logged: writer(logged) == own, events[0])


class ReplayStore(MemorySessionStore):
    """The log so far, and the signals that came next in it."""

    def __init__(self, cassette: Cassette, starter: Principal, clock: Clock) -> None:
        super().__init__(MemoryLeaseStore(clock))
        self._cassette = cassette
        self._starter = starter

    async def read(self, tenant: str, session_id: str, after: int, *, limit: int) -> Sequence[Entry]:
        return self._cassette.entries(after)[:limit]

    async def starter(self, tenant: str, session_id: str) -> Principal:
        return self._starter

    async def append(self, lease: Lease, entries: Sequence[Entry], **_: Any) -> int:
        return 0

    async def signals(self, tenant: str, session_id: str) -> Sequence[Signal]:
        log, given = self._cassette.log, self._cassette.given
        end = self._cassette.position
        while end < len(log) and log[end].WhichOneof("payload") in _SIGNALS:
            end += 1
        after = [*log[given + 1 : end], Event()]
        return [
            _signal(event, said)
            for event, said in zip(log[given:end], after, strict=False)
            if event.HasField("signal_received")
        ]


def _signal(event: Event, said: Event) -> Signal:
    """A signal, of its event and the one after it, which has what a person said."""
    received = event.signal_received
    return Signal(
        received.signal_id,
        received.signal,
        event.actor.removeprefix("user:"),
        received.target,
        said.input_given.answer or said.message_injected.content,
        said.input_given.approved,
        said.input_given.override_id,
    )


def _by_driver(event: Event) -> bool:
    return not writer(event)


def _ids(message: Message) -> Iterator[str]:
    """Ids in a message, in the order of its fields."""
    for field, value in message.ListFields():
        if field.message_type and not field.message_type.GetOptions().map_entry:
            for inner in value if field.is_repeated else (value,):
                yield from _ids(inner)
        elif (field.name == "id" or field.name.endswith("_id")) and isinstance(value, str) and "_" in value:
            yield value
