"""A log as it is run again: what comes next, what came out, and where the two part."""

from __future__ import annotations

import asyncio
import difflib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from agentnet.orchestrator.v1 import event_pb2, history_pb2
from services.orchestrator.store import Entry

_VALUE: Final = 4_096
_DIFF: Final = 16_384
# What a replay may do that the log does not show, such as reading an agent, is done by then.
_PATIENCE_SECONDS: Final = 10.0
_CLOCKS: Final = ("google.protobuf.Timestamp", "google.protobuf.Duration")

Event = event_pb2.SessionEvent


class ReplayStopped(Exception):
    """Nothing more can be replayed by this driver. Nothing catches it but the replay."""


class Cassette:
    """The log, and how far it was replayed."""

    def __init__(self, log: Sequence[Event]) -> None:
        self.log = log
        # What was taken over from another session is given, as the first event is.
        given = max((place for place, event in enumerate(log) if event.HasField("session_forked")), default=0)
        self.given = given + 1
        self.replayed: list[Event] = list(log[: self.given])
        self.difference: history_pb2.Difference | None = None
        self.stopped = asyncio.Event()
        self.signalled = asyncio.Event()
        self._move = asyncio.Event()

    @property
    def position(self) -> int:
        return len(self.replayed)

    @property
    def following(self) -> Event | None:
        """What the log has next."""
        return self.log[self.position] if self.position < len(self.log) else None

    @property
    def ended(self) -> bool:
        return self.difference is not None or self.following is None

    def entries(self, after: int) -> list[Entry]:
        """What was replayed, as a store gives it."""
        return [
            Entry(event.sequence, event.WhichOneof("payload") or "", event.SerializeToString())
            for event in self.replayed[after:]
        ]

    def take(self, event: Event) -> None:
        """Takes what came out, with the log's own clock. Raises ReplayStopped where the two part, where the log ends,
        and where its writer died.
        """
        logged = self.following
        if self.difference is not None or logged is None or (_kind(logged) == "session_taken_over" != _kind(event)):
            raise self.stop()
        _by_its_clock(event, logged)
        _by_its_origin(event, logged)
        if canonical(event) != canonical(logged):
            self.replayed.append(event)
            raise self.stop(differ(logged, event))
        self.replayed.append(event)
        if self.following is None:
            self.stopped.set()
        elif self.following.HasField("signal_received"):
            self.signalled.set()
        moved, self._move = self._move, asyncio.Event()
        moved.set()

    def stop(self, difference: history_pb2.Difference | None = None) -> ReplayStopped:
        """Ends this driver's part."""
        self.difference = self.difference or difference
        self.stopped.set()
        return ReplayStopped()

    async def until(self, wanted: Callable[[Event], bool], instead: Event | None = None) -> Event:
        """Waits until the log has such an event next, and returns it.

        Raises ReplayStopped when that cannot be any more, and when nothing is replayed meanwhile: then what was to come
        `instead` is the difference.
        """
        while True:
            logged = self.following
            if logged is None or self.difference is not None or logged.HasField("session_taken_over"):
                raise self.stop()
            if wanted(logged):
                return logged
            await self.moved(instead)

    async def moved(self, instead: Event | None = None) -> None:
        """Waits until something was replayed. Raises ReplayStopped when nothing is."""
        try:
            await asyncio.wait_for(self._move.wait(), _PATIENCE_SECONDS)
        except TimeoutError:
            raise self.stop(differ(self.following, instead)) from None


def writer(event: Event) -> str:
    """Who of a driver puts an event into the log: a call of a tool, a turn, or itself; tasks that do not wait for each
    other have different ones.
    """
    match event.WhichOneof("payload"):
        case "tool_finished" | "tool_progressed" | "input_requested":
            return _caller(event)
        case "progressed":
            return event.progressed.turn_id
        case "turn_finished":
            return event.turn_finished.turn.id
        case "tokens_produced" | "monitor_verdict" | "failed_over" | "turn_interrupted" as kind:
            return str(getattr(event, kind).turn_id)
        case _:
            return ""


def _caller(event: Event) -> str:
    """The call of a tool that an event is of; one that rules of policy hold asks people by itself."""
    asked = event.input_requested.input
    held = asked.request_id if asked.rules and asked.tool else ""
    return event.tool_finished.call.request_id or event.tool_progressed.request_id or held


def canonical(event: Event) -> bytes:
    """An event's bytes, the same for the same content: fields in their order, keys of maps sorted."""
    return event.SerializeToString(deterministic=True)


def log_hash(events: Iterable[Event]) -> str:
    """SHA-256 over each event after the hash before it, hex."""
    digest = b""
    for event in events:
        digest = hashlib.sha256(digest + canonical(event)).digest()
    return digest.hex()


def differ(logged: Event | None, replayed: Event | None) -> history_pb2.Difference:
    """What differs first between two events of the same place."""
    found = history_pb2.Difference(
        sequence=(logged or replayed or Event()).sequence, logged=_kind(logged), replayed=_kind(replayed)
    )
    if logged is None or replayed is None or found.logged != found.replayed:
        return found
    # Fields of a later version of the contract are in the bytes and have no name here.
    field, before, after = next(_differing(logged, replayed, ""), ("", str(logged), str(replayed)))
    found.field, found.logged_value, found.replayed_value = field, before[:_VALUE], after[:_VALUE]
    found.diff = text_diff(before, after)
    return found


def text_diff(before: str, after: str, *, names: tuple[str, str] = ("logged", "replayed")) -> str:
    """Both as a unified diff by lines; empty when they are the same."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), *names, lineterm="")
    return "\n".join(lines)[:_DIFF]


def _kind(event: Event | None) -> str:
    return (event.WhichOneof("payload") or "") if event else ""


def _differing(left: Message, right: Message, path: str) -> Iterator[tuple[str, str, str]]:
    """The fields that differ, the innermost ones, with both values as text."""
    for field in left.DESCRIPTOR.fields:
        name = f"{path}.{field.name}" if path else field.name
        ours, others = getattr(left, field.name), getattr(right, field.name)
        if ours == others:
            if field.has_presence and (there := left.HasField(field.name)) != right.HasField(field.name):
                yield name, "{}" if there else "", "" if there else "{}"
        elif field.message_type and not field.is_repeated and field.message_type.full_name not in _CLOCKS:
            yield from _differing(ours, others, name)
        else:
            yield name, str(ours), str(others)


def _by_its_clock(event: Message, logged: Message) -> None:
    """Readings of clocks, and the trace of the work, are the log's: wherever both have one."""
    for field, value in event.ListFields():
        if field.name == "trace_id":
            event.trace_id = logged.trace_id  # type: ignore[attr-defined] # both are of one kind
        elif field.message_type and not field.message_type.GetOptions().map_entry:
            pairs = (
                zip(value, getattr(logged, field.name), strict=False)
                if field.is_repeated
                else _both(value, logged, field)
            )
            for ours, theirs in pairs:
                if ours.DESCRIPTOR.full_name in _CLOCKS:
                    ours.CopyFrom(theirs)
                else:
                    _by_its_clock(ours, theirs)


def _by_its_origin(event: Event, logged: Event) -> None:
    """Where a log that was taken in came from is noted in it, and nothing follows from that."""
    if event.HasField("turn_finished") and logged.HasField("turn_finished"):
        event.turn_finished.turn.copied_from = logged.turn_finished.turn.copied_from
    if logged.session_finished.session.origin.kind == "import" and event.HasField("session_finished"):
        event.session_finished.session.origin.CopyFrom(logged.session_finished.session.origin)


def _both(value: Message, logged: Message, field: FieldDescriptor) -> list[tuple[Message, Message]]:
    return [(value, getattr(logged, field.name))] if logged.HasField(field.name) else []
