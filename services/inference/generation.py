"""One generation: its events, kept as the bytes every reader gets, and who reads them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Final

from agentnet.inference.v1 import generation_pb2
from agentnet.inference.v1 import inference_service_pb2 as pb
from shared.clock import Clock

_PACKED: Final = 512
_EVENT: Final = bytes([pb.GenerateResponse.EVENT_FIELD_NUMBER << 3 | 2])
_MORE: Final = bytes([pb.GenerateResponse.MORE_FIELD_NUMBER << 3 | 2])
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_BIT_MORE: Final = 128
_DAY: Final = 24 * 60 * 60
# What stands between a reader and a silent stream takes it for dead after a minute.
HEARTBEAT: Final = timedelta(seconds=10)


def packed(responses: list[bytes]) -> bytes:
    """Several responses as one: the first event, then the others as `more`.

    A response of one event is a tag, a length and the event; another tag in its place is all it takes (protobuf.dev,
    "Encoding": length-delimited fields).
    """
    return responses[0] + b"".join(_MORE + response[1:] for response in responses[1:])


def _varint(number: int) -> bytes:
    """A length as protobuf writes it."""
    found = bytearray()
    while number >= _BIT_MORE:
        found.append(number % _BIT_MORE | _BIT_MORE)
        number >>= 7
    found.append(number)
    return bytes(found)


def _response(event: generation_pb2.GenerationEvent, generation_id: str, sequence: int, clock: Clock) -> bytes:
    """GenerateResponse and AttachResponse have the same one field: the same bytes serve both."""
    event.generation_id = generation_id
    event.sequence = sequence
    since, time = clock.now() - _EPOCH, event.time
    time.seconds, time.nanos = since.days * _DAY + since.seconds, since.microseconds * 1000
    written = event.SerializeToString()
    return _EVENT + _varint(len(written)) + written


def heartbeat(generation_id: str, after: int, clock: Clock) -> bytes:
    """A sign of life for one reader, who has seen so much."""
    event = generation_pb2.GenerationEvent(heartbeat=generation_pb2.GenerationHeartbeat())
    return _response(event, generation_id, after, clock)


class Generation:
    """Written by one task, read by any number. A reader never holds the writer up: it reads the list."""

    def __init__(
        self,
        tenant: str,
        generation_id: str,
        *,
        grace: timedelta,
        clock: Clock,
        noted: Callable[[Generation], object] = lambda _: None,
    ) -> None:
        self.tenant = tenant
        self.id = generation_id
        self.grace = grace
        self.events: list[bytes] = []
        self.done = False
        self.task: asyncio.Task[None] | None = None
        self.flushed = 0
        self.answers = ""
        """The request that it answers for all who ask the same; empty: its own caller's alone."""
        self._beaten = 0
        self._clock = clock
        self._noted = noted
        self._readers = 0
        self._waiting: list[asyncio.Future[None]] = []
        self._ended = asyncio.Event()
        self._left: asyncio.TimerHandle | None = None
        self._when_done: Callable[[], object] = lambda: None

    def append(self, event: generation_pb2.GenerationEvent, *, last: bool = False) -> None:
        """Numbers the event, keeps its bytes and wakes the readers."""
        self.events.append(_response(event, self.id, len(self.events) + 1, self._clock))
        self.done = last
        self._noted(self)
        self._wake()
        if last:
            self._ended.set()
            self._when_done()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for reader in waiting:
            if not reader.done():
                reader.set_result(None)

    def when_done(self, callback: Callable[[], object]) -> None:
        """Calls back once, right after the last event."""
        self._when_done = callback

    def beat(self) -> None:
        """Called now and then: gives its readers a sign of life when nothing has happened since the call before."""
        if self._beaten == len(self.events):
            self._wake()
        self._beaten = len(self.events)

    async def read(
        self, after: int, *, packing: bool = False, gather: timedelta = timedelta()
    ) -> AsyncGenerator[bytes, None]:
        """Events after a sequence, live to the last; packed, all there are at a time, and after the first not more
        often than `gather`; heartbeats while it is silent. When the last reader leaves, the grace begins.
        """
        with self._reading():
            while True:
                while after < len(self.events):
                    waiting = self.events[after : after + _PACKED if packing else after + 1]
                    after += len(waiting)
                    yield waiting[0] if len(waiting) == 1 else packed(waiting)
                    if gather:
                        await self._ended_within(gather)
                if self.done:
                    return
                more = asyncio.get_running_loop().create_future()
                self._waiting.append(more)
                await more
                if after == len(self.events):
                    yield heartbeat(self.id, after, self._clock)

    async def whole(self) -> list[bytes]:
        """All events, once there are no more. Who is cancelled meanwhile is a reader that leaves."""
        with self._reading():
            await self._ended.wait()
        return self.events

    async def _ended_within(self, limit: timedelta) -> None:
        """The end or that much time, without waking for what comes meanwhile."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limit.total_seconds()):
                await self._ended.wait()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        self._readers += 1
        if self._left:
            self._left.cancel()
            self._left = None
        try:
            yield
        finally:
            self._readers -= 1
            if self._readers == 0 and not self.done:
                loop = asyncio.get_running_loop()
                self._left = loop.call_later(self.grace.total_seconds(), self.cancel)

    def cancel(self) -> None:
        """Calls the provider off; the task settles what was spent."""
        if not self.events:  # a task cancelled before its first step would never settle
            asyncio.get_running_loop().call_soon(self.cancel)
        elif self.task and not self.done:
            self.task.cancel()
