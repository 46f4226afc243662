"""Hearing a generation to its end: its events in batches as they come, read on by Attach when the connection breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from grpc import StatusCode

from agentnet.inference.v1 import generation_pb2, message_pb2
from agentnet.orchestrator.v1 import event_pb2
from services.orchestrator.peers import InferencePeer
from services.orchestrator.record import RunLog
from shared.errors import Aborted, MeshError, NotFound, OutOfRange, Reason, Unavailable
from shared.identity import Principal
from shared.log import log

# Whoever held the generation is gone and so is what it wrote: the turn is tried anew.
_GONE: Final = (Reason.ERROR_REASON_GENERATION_NOT_FOUND, Reason.ERROR_REASON_GENERATION_EXPIRED)
_REATTACH_PAUSES: Final = (0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.5, 2.0, 2.0)
_ENDS: Final = ("finished", "failed")

Event = event_pb2.SessionEvent
Generated = generation_pb2.GenerationEvent
Events = AsyncGenerator[Generated, None]
ToolCalls = dict[int, message_pb2.ToolCall]


@dataclass(frozen=True, slots=True)
class Speech:
    """One generation's place in a log: the turn its text comes under, what it is attached to by, who speaks as events
    name it, and the last of its events that is in the log.
    """

    record: RunLog[Any]
    turn_id: str
    generation_id: str
    actor: str
    heard_so_far: Callable[[], int]

    @property
    def heard(self) -> int:
        return self.heard_so_far()

    async def show(self, events: Sequence[Event], *, last: bool) -> float:
        """Writes what was heard; tells for how many seconds what follows may be gathered. Raises LeaseLost.

        With `last` a commit follows, for which only those who read need not wait.
        """
        if last and self.record.quiet:
            self.record.stage(events)
            return 0.0
        return await self.record.show(events)


@dataclass(frozen=True, slots=True)
class Hearing:
    """Reads generations for all runs of a replica."""

    inference: InferencePeer
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def hear(
        self,
        caller: Principal,
        speech: Speech,
        events: Events,
        *,
        calls: ToolCalls | None = None,
        gathered: bool = False,
    ) -> Generated:
        """Shows the generation's events as they come and returns its last one, finished or failed.

        With `calls` the tools it asks for are put there by place; then events must begin at the first, since what asks
        for tools is not in the log. `gathered` ones come in pieces as long as nobody reads. Raises the service's
        MeshError, and Aborted when the generation is gone.
        """
        pauses = iter(_REATTACH_PAUSES)
        refused: MeshError | None = None
        while True:
            try:
                last = await self._follow(speech, events, calls, gathered=gathered)
                if last.WhichOneof("event") in _ENDS:
                    return last
                gathered = False
                events = self.inference.attach(caller, speech.generation_id, after=last.sequence)
            except (NotFound, OutOfRange) as error:
                if error.reason in _GONE:
                    gone = Aborted("the generation is gone", reason=Reason.ERROR_REASON_GENERATION_LOST)
                    raise refused or gone from error
                raise
            except MeshError as error:
                pause = next(pauses, None) if error.code is StatusCode.UNAVAILABLE else None
                if pause is None:
                    raise
                refused = None if speech.heard else error
                log.warning("turn.stream_broke", turn_id=speech.turn_id, reason=error.reason_name)
                await self.sleep(pause)
                after = speech.heard if calls is None else 0
                events = self.inference.attach(caller, speech.generation_id, after=after)

    async def _follow(self, speech: Speech, events: Events, calls: ToolCalls | None, *, gathered: bool) -> Generated:
        """The last event; of those that come gathered, the last before somebody began to read.

        All that has arrived is written at once, so that a slow log never delays the model by more than one write.
        """
        arrivals = _Arrivals(self.sleep)
        filling = asyncio.create_task(arrivals.fill(events))
        pause, last = 0.0, None
        try:
            while True:
                if last and (quiet := speech.record.quiet):  # a short answer comes whole with its first
                    await self._gather(speech, quiet, arrivals, filling)
                    if gathered and not (speech.record.quiet or arrivals.some):
                        return last
                batch = await arrivals.taken(pause)
                if not batch:
                    await filling  # raises why the stream ended early
                    raise Unavailable("the generation's stream ended without its last event")
                if calls is not None:
                    asked = [event.tool_call for event in batch if event.HasField("tool_call")]
                    calls.update({one.index: one.tool_call for one in asked})
                last = batch[-1]
                ended = last.WhichOneof("event") in _ENDS
                shown = _shown(speech, batch)
                pause = await speech.show(shown, last=ended) if shown else pause
                if ended or (gathered and not speech.record.quiet):
                    return last
        finally:
            if filling.cancel() or filling.cancelled() or filling.exception():
                await asyncio.gather(filling, return_exceptions=True)

    async def _gather(self, speech: Speech, seconds: float, arrivals: _Arrivals, filling: asyncio.Task[None]) -> None:
        """Lets text come together, but not beyond the end of the stream, nor when somebody begins to read."""
        napping = asyncio.ensure_future(arrivals.some_after(seconds))
        coming = asyncio.ensure_future(speech.record.reader_came.wait())
        try:
            await asyncio.wait({napping, coming, filling}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            napping.cancel()
            coming.cancel()


class _Arrivals:
    """What has come of a stream and was not taken yet. `over` when no more will come, for whatever reason."""

    def __init__(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        self.over = False
        self._sleep = sleep
        self._events: list[Generated] = []
        self._come = asyncio.Event()
        self._taken_at = 0.0

    async def fill(self, events: Events) -> None:
        """Takes every event in."""
        try:
            async with aclosing(events):
                async for event in events:
                    self._events.append(event)
                    self._come.set()
        finally:
            self.over = True
            self._come.set()

    @property
    def some(self) -> bool:
        """Whether there is something to take, if only the end."""
        return bool(self._events) or self.over

    async def some_after(self, seconds: float) -> None:
        """Waits for that time and for something to come."""
        await self._sleep(seconds)
        await self._come.wait()

    async def taken(self, pause: float) -> list[Generated]:
        """What is there, so many seconds after it was taken before; nothing only when it is over."""
        loop = asyncio.get_running_loop()
        await self._come.wait()
        early = self._taken_at + pause - loop.time()
        if early > 0 and not self.over:
            await self._sleep(early)
        self._taken_at = loop.time()
        events, self._events = self._events, []
        if not self.over:
            self._come.clear()
        return events


def _shown(speech: Speech, batch: Sequence[Generated]) -> list[Event]:
    """Text that came together is one event; verdicts keep their place in it."""
    shown: list[Event] = []
    together: list[Generated] = []
    heard = speech.heard
    for event in batch:
        if event.sequence <= heard:
            continue
        kind = event.WhichOneof("event")
        if kind == "text":
            together.append(event)
        elif other := _beside(speech, event, kind):
            shown += (*_told(speech, together), other)
            together = []
    return [*shown, *_told(speech, together)]


def _beside(speech: Speech, event: Generated, kind: str | None) -> Event | None:
    """What comes between texts and is shown."""
    if kind == "verdict":
        return Event(monitor_verdict=_verdict(speech.turn_id, event), actor="mesh")
    if kind == "failover":
        return Event(failed_over=_failed_over(speech.turn_id, event.failover), actor="mesh")
    return None


def _told(speech: Speech, together: Sequence[Generated]) -> list[Event]:
    """Texts that came one after another, as one event."""
    if not together:
        return []
    texts = [event.text for event in together]
    tokens = event_pb2.TokensProduced(
        turn_id=speech.turn_id,
        # Postgres keeps no U+0000.
        text="".join([text.text for text in texts]).replace("\x00", "\N{REPLACEMENT CHARACTER}"),
        token_count=sum([text.token_count for text in texts]),
        generation_sequence=together[-1].sequence,
    )
    return [Event(tokens_produced=tokens, actor=speech.actor)]


def _verdict(turn_id: str, event: Generated) -> event_pb2.MonitorVerdict:
    found = event.verdict
    return event_pb2.MonitorVerdict(
        turn_id=turn_id,
        rule=found.rule,
        bundle=found.bundle,
        action=found.action,
        severity=found.severity,
        span_start=found.span_start,
        span_end=found.span_end,
        target=found.target,
        generation_sequence=event.sequence,
    )


def _failed_over(turn_id: str, failover: generation_pb2.Failover) -> event_pb2.FailedOver:
    return event_pb2.FailedOver(
        turn_id=turn_id,
        from_model=failover.from_model,
        to_model=failover.to_model,
        restarted=failover.restarted,
        failure=failover.failure,
    )
