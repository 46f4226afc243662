"""What a session's driver asks while it is run again, answered from the log: model, memory, clock, ids, signals."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.message import Message

from agentnet.inference.v1 import generation_pb2
from agentnet.orchestrator.v1 import event_pb2, turn_pb2
from services.orchestrator.peers import TurnMemory, Utterance
from services.orchestrator.prompts import Known
from services.orchestrator.record import SessionLog
from services.orchestrator.replays.cassette import Cassette
from services.orchestrator.store import Entry, Lease, LogTail, SessionStore, Signal
from services.orchestrator.store_memory import MemoryLeaseStore, MemorySessionStore
from shared.clock import Clock
from shared.identity import Principal

Event = event_pb2.SessionEvent
Generated = generation_pb2.GenerationEvent


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

    def stamp(self, event: Event) -> None:
        super().stamp(event)
        self._cassette.take(event)


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
        return len(await self.signals(lease.tenant, lease.session_id))

    async def signals(self, tenant: str, session_id: str) -> Sequence[Signal]:
        received = [
            event for event in self._cassette.replayed[self._cassette.given :] if event.HasField("signal_received")
        ]
        for event in self._cassette.log[self._cassette.position :]:
            if not event.HasField("signal_received"):
                break
            received.append(event)
        return [
            Signal(
                event.signal_received.signal_id,
                event.signal_received.signal,
                event.actor.removeprefix("user:"),
                event.signal_received.target,
            )
            for event in received
        ]


class ReplayMemory:
    """What an agent was given to know, by reference: the log keeps no contents of memories."""

    def __init__(self, cassette: Cassette) -> None:
        self._cassette = cassette

    async def recall(self, caller: Principal, *, session_id: str, agent: str, query: str) -> TurnMemory:
        for event in self._cassette.log[self._cassette.position :]:
            if event.HasField("turn_started") and event.turn_started.agent.partition("@")[0] == agent:
                found = event.turn_started.context.semantic_refs
                return TurnMemory(tuple(Known(one.id, "", one.score) for one in found))
        return TurnMemory()

    async def append(self, caller: Principal, *, session_id: str, turn_id: str, agent: str, content: str) -> None:
        return None


class ReplayInference:
    """Says what was said, event by event, each when the log has come to it."""

    def __init__(self, cassette: Cassette) -> None:
        self._cassette = cassette
        self.signalled = asyncio.Event()

    async def generate(self, caller: Principal, utterance: Utterance) -> AsyncGenerator[Generated, None]:
        async for event in self._said(utterance.generation_id, 0):
            yield event

    async def attach(self, caller: Principal, generation_id: str, *, after: int) -> AsyncGenerator[Generated, None]:
        async for event in self._said(generation_id, after):
            yield event

    async def cancel(self, caller: Principal, generation_id: str) -> None:
        return None

    async def _said(self, generation_id: str, heard: int) -> AsyncGenerator[Generated, None]:
        turn_id = generation_id.rpartition("-")[0]
        while True:
            logged = self._cassette.following
            if logged is None or logged.HasField("session_taken_over"):
                raise self._cassette.stop()
            event = _said(logged, turn_id, heard)
            if event is not None:
                heard = event.sequence
                yield event
                if event.HasField("finished") or event.HasField("failed"):
                    return
            elif logged.HasField("signal_received"):
                self.signalled.set()
            await self._cassette.moved()


def _said(logged: Event, turn_id: str, heard: int) -> Generated | None:
    """What the model's stream must have held for a turn's event; None for everything else."""
    match logged.WhichOneof("payload"):
        case "tokens_produced" if logged.tokens_produced.turn_id == turn_id:
            tokens = logged.tokens_produced
            text = generation_pb2.TextProduced(text=tokens.text, token_count=tokens.token_count)
            return Generated(sequence=tokens.generation_sequence, text=text)
        case "monitor_verdict" if logged.monitor_verdict.turn_id == turn_id:
            return Generated(sequence=logged.monitor_verdict.generation_sequence, verdict=_verdict(logged))
        case "failed_over" if logged.failed_over.turn_id == turn_id:
            return Generated(sequence=heard + 1, failover=_failover(logged))
        case "turn_finished" if logged.turn_finished.turn.id == turn_id:
            return Generated(sequence=heard + 1, finished=_finished(logged.turn_finished.turn))
        case "turn_interrupted" if logged.turn_interrupted.turn_id == turn_id:
            failed = generation_pb2.GenerationFailed(failure=logged.turn_interrupted.failure)
            return Generated(sequence=heard + 1, failed=failed)
        case _:
            return None


def _verdict(logged: Event) -> generation_pb2.PolicyVerdict:
    found = logged.monitor_verdict
    return generation_pb2.PolicyVerdict(
        rule=found.rule,
        bundle=found.bundle,
        action=found.action,
        severity=found.severity,
        span_start=found.span_start,
        span_end=found.span_end,
        target=found.target,
    )


def _failover(logged: Event) -> generation_pb2.Failover:
    found = logged.failed_over
    return generation_pb2.Failover(
        from_model=found.from_model, to_model=found.to_model, restarted=found.restarted, failure=found.failure
    )


def _finished(turn: turn_pb2.Turn) -> generation_pb2.GenerationFinished:
    monitors = [
        generation_pb2.MonitorTiming(rule=found.name, status=found.status, elapsed=found.elapsed)
        for found in turn.monitors
    ]
    return generation_pb2.GenerationFinished(
        usage=turn.usage if turn.HasField("usage") else None,
        cost=turn.cost if turn.HasField("cost") else None,
        monitors=monitors,
        time_to_first_token=turn.time_to_first_token if turn.HasField("time_to_first_token") else None,
    )


def _ids(message: Message) -> Iterator[str]:
    """Ids in a message, in the order of its fields."""
    for field, value in message.ListFields():
        if field.message_type and not field.message_type.GetOptions().map_entry:
            for inner in value if field.is_repeated else (value,):
                yield from _ids(inner)
        elif (field.name == "id" or field.name.endswith("_id")) and isinstance(value, str) and "_" in value:
            yield value
