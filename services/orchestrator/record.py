"""Writing a run's log: numbers events, shows them live, commits them; one writer a run, under its lease.

A run is whatever has a log and a lease: a session, a task graph. Each kind says how its log folds and is summed up.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Final, Generic, Protocol, TypeVar

from opentelemetry import trace

from agentnet.orchestrator.v1 import event_pb2, input_pb2, session_pb2, turn_pb2
from services.orchestrator import state as sessions
from services.orchestrator.errors import LeaseLost
from services.orchestrator.graphs import state as graphs
from services.orchestrator.graphs.state import GraphState
from services.orchestrator.state import SessionState
from services.orchestrator.store import Entry, Lease, LogTail, SessionStore
from shared.clock import Clock

_PAGE: Final = 1000
# Committed events that stay in the live tail, for readers a little behind.
_KEPT: Final = 1000
# While somebody reads, text is shown as it comes, but not more often than this; while nobody does, it is gathered until
# somebody begins to, the turn ends, or this time is over.
_WATCHED_SECONDS: Final = 0.003
_UNWATCHED_SECONDS: Final = 1.0
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Event = event_pb2.SessionEvent


class RunState(Protocol):
    """What the state of every kind of run has."""

    @property
    def session(self) -> session_pb2.Session: ...
    @property
    def last_sequence(self) -> int: ...
    @property
    def signals(self) -> AbstractSet[str]: ...
    @property
    def takeovers(self) -> int: ...
    @property
    def waiting(self) -> bool: ...
    @property
    def paused(self) -> bool: ...
    @property
    def finished(self) -> bool: ...
    @property
    def input_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int: ...
    @property
    def cost_micros_usd(self) -> int: ...


State = TypeVar("State", bound=RunState)


class RunLog(ABC, Generic[State]):
    """State and log of one run, kept in step: what is written is folded, what is folded is written.

    Any number of tasks of one driver may write at once: the log goes to the stores in one order, and what came together
    goes together.
    """

    state: State

    def __init__(self, lease: Lease, store: SessionStore, tail: LogTail, clock: Clock) -> None:
        self.lease = lease
        self.store = store
        self.tail = tail
        self.clock = clock
        self._uncommitted: list[Entry] = []
        self._unshown: list[Entry] = []
        # Whether the live tail may hold events of this log: then what is committed follows them there.
        self._live = lease.fence > 1
        # Until somebody looks nobody knows; who begins a run here has it before anyone can read it.
        self._unread: bool | None = True if lease.begun else None
        self.reader_came = tail.reader_came(lease.tenant, lease.session_id)
        self._writing = asyncio.Lock()
        # How many signals there were at the last commit; before the first one nobody knows.
        self.signals_stored: int | None = None
        self._latest = _EPOCH

    def now(self) -> datetime:
        """The time, and never before that of an event of the log: clocks of replicas differ."""
        self._latest = max(self.clock.now(), self._latest)
        return self._latest

    @property
    def signals_due(self) -> bool:
        """Whether there may be signals that are not in the log."""
        return self.signals_stored is None or self.signals_stored > len(self.state.signals)

    async def went_on(self) -> bool:
        """Asked before a driver does what it decided; True when the log went on meanwhile and it has to decide anew.

        Here a driver acts at once; who writes a log again lets it act where it did.
        """
        return False

    @abstractmethod
    def fold(self, events: Iterable[Event]) -> State:
        """The state after these events."""

    @abstractmethod
    def sum_up(self, session: session_pb2.Session) -> None:
        """Writes into the summary what only this kind of run has."""

    async def load(self) -> None:
        """The committed log, then what the last owner had shown and not committed: no reader may see it change.

        Raises LeaseLost.
        """
        tenant, session_id = self.lease.tenant, self.lease.session_id
        if self.lease.begun is not None:
            first = Event.FromString(self.lease.begun.first.payload)
            self.state, self._latest = self.fold([first]), first.time.ToDatetime(UTC)
            return
        more, last = True, Event()
        while more:
            entries = await self.store.read(tenant, session_id, self.state.last_sequence, limit=_PAGE)
            events = [Event.FromString(entry.payload) for entry in entries]
            self.state = self.fold(events)
            more, last = len(entries) == _PAGE, events[-1] if events else last
        # The first owner ever has nobody to shut out and nothing to adopt.
        live = await self.tail.take_over(self.lease, self.state.last_sequence) if self.lease.fence > 1 else ()
        events = [Event.FromString(entry.payload) for entry in live]
        self._uncommitted += [_entry(event, entry.payload) for event, entry in zip(events, live, strict=True)]
        self.state = self.fold(events)
        self._latest = (events[-1] if events else last).time.ToDatetime(UTC)

    def stage(self, events: Sequence[Event]) -> None:
        """Numbers and folds events; they are written with the next that are shown or committed."""
        entries = self._numbered(events)
        self._uncommitted += entries
        self._unshown += entries

    async def show(self, events: Sequence[Event]) -> float:
        """Writes events to the live tail; they are committed with what ends the turn. Raises LeaseLost.

        Tells for how many seconds what follows may be gathered before it is shown.
        """
        self.stage(events)
        self.reader_came.clear()
        async with self._writing:
            readers = await self._tail() if self._unshown else 0
        if readers is None:
            raise LeaseLost("another replica drives the session", session_id=self.lease.session_id)
        self._unread = not readers
        return self.quiet or _WATCHED_SECONDS

    async def look(self) -> None:
        """Sees whether somebody reads, unless that is known."""
        if self._unread is None:
            self.reader_came.clear()
            self._unread = not await self.tail.readers(self.lease.tenant, self.lease.session_id)

    async def tell(self, events: Sequence[Event]) -> None:
        """Shows events, or while nobody reads leaves them for what is written next. Raises LeaseLost."""
        if self.quiet:
            self.stage(events)
        else:
            await self.show(events)

    @property
    def quiet(self) -> float:
        """For how many seconds text may be gathered because nobody reads; 0 when somebody does, or may."""
        return _UNWATCHED_SECONDS if self._unread and not self.reader_came.is_set() else 0.0

    async def commit(self, events: Sequence[Event] = (), *, release: bool = False) -> None:
        """Commits events, after all that was only staged or shown, then shows them: in the live tail when it holds some
        of this log, else readers are woken and find them in the store. Raises LeaseLost.

        Being cancelled takes effect when the commit has ended: what is numbered is written, or the log had a gap.
        """
        self.stage(events)
        writing = asyncio.create_task(self._commit(release=release))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            (outcome,) = await asyncio.gather(writing, return_exceptions=True)
            if isinstance(outcome, Exception):
                raise outcome from None
            raise

    async def _commit(self, *, release: bool) -> None:
        async with self._writing:
            entries = list(self._uncommitted)
            if not entries:
                return
            self.signals_stored = await self.store.append(
                self.lease,
                entries,
                session=self.summary(),
                turns=_turns(entries),
                release=release,
                signals_taken=len(self.state.signals),
            )
            del self._uncommitted[: len(entries)]
            if self._live:
                await self._tail(keep_from=entries[-1].sequence - _KEPT)
                self._live = self.lease.fence > 1
            else:
                self._unshown = [entry for entry in self._unshown if entry.sequence > entries[-1].sequence]
                if release or not self.quiet:  # who begins to read is woken when it is heard of here
                    self.tail.wake(self.lease, entries)

    async def _tail(self, *, keep_from: int = 0) -> int | None:
        entries, self._unshown = self._unshown, []
        self._live = self._live or bool(entries)
        return await self.tail.append(self.lease, entries, keep_from=keep_from) if entries else 0

    def summary(self) -> session_pb2.Session:
        """The session as the state has it now."""
        state = self.state
        session = session_pb2.Session()
        session.CopyFrom(state.session)
        session.last_sequence = state.last_sequence
        if state.finished:
            return session
        session.status = _status(state)
        session.cost_micros_usd = state.cost_micros_usd
        session.usage.input_tokens = state.input_tokens
        session.usage.output_tokens = state.output_tokens
        self.sum_up(session)
        return session

    @staticmethod
    def asking(session: session_pb2.Session, inputs: Mapping[str, input_pb2.HumanInput]) -> None:
        """Writes into a summary what people are asked."""
        del session.inputs[:]
        session.inputs.extend(inputs.values())
        if session.inputs and session.status == session_pb2.SESSION_STATUS_WAITING:
            session.status = session_pb2.SESSION_STATUS_AWAITING_INPUT

    def stamp(self, event: Event) -> None:
        """Writes into an event what every event has."""
        event.session_id = self.lease.session_id
        event.sequence = self.state.last_sequence + 1
        _time(event, self.now())
        event.trace_id = _trace_id()
        event.actor = event.actor or "mesh"
        if event.HasField("session_finished"):
            event.session_finished.session.last_sequence = event.sequence

    def _numbered(self, events: Sequence[Event]) -> list[Entry]:
        entries: list[Entry] = []
        for event in events:
            self.stamp(event)
            self.state = self.fold([event])
            entries.append(_entry(event, event.SerializeToString()))
        return entries


class SessionLog(RunLog[SessionState]):
    """The log of agents on a topic."""

    def __init__(self, lease: Lease, store: SessionStore, tail: LogTail, clock: Clock) -> None:
        super().__init__(lease, store, tail, clock)
        self.state = SessionState()

    def fold(self, events: Iterable[Event]) -> SessionState:
        return sessions.fold(self.state, events)

    def sum_up(self, session: session_pb2.Session) -> None:
        session.rounds_executed = self.state.rounds_finished
        session.converged = self.state.converged
        del session.round_similarities[:]
        session.round_similarities.extend(self.state.similarities)
        session.result = self.state.result
        if self.state.decisions:
            session.decision.CopyFrom(self.state.decisions[-1])
        self.asking(session, self.state.inputs)


class GraphLog(RunLog[GraphState]):
    """The log of a task graph."""

    def __init__(self, lease: Lease, store: SessionStore, tail: LogTail, clock: Clock) -> None:
        super().__init__(lease, store, tail, clock)
        self.state = GraphState()

    def fold(self, events: Iterable[Event]) -> GraphState:
        return graphs.fold(self.state, events)

    def sum_up(self, session: session_pb2.Session) -> None:
        self.asking(session, self.state.inputs)


def _entry(event: Event, payload: bytes) -> Entry:
    return Entry(event.sequence, event.WhichOneof("payload") or "", payload)


def _turns(entries: Sequence[Entry]) -> list[turn_pb2.Turn]:
    """The turns that end in these events, be they another writer's or of an owner who died before its commit."""
    ended = (entry.payload for entry in entries if entry.kind == "turn_finished")
    return [Event.FromString(payload).turn_finished.turn for payload in ended]


def _time(event: Event, now: datetime) -> None:
    """What Timestamp.FromDatetime does, at a tenth of its cost: every event is stamped."""
    since = now - _EPOCH
    event.time.seconds = since.days * 86_400 + since.seconds
    event.time.nanos = since.microseconds * 1000


def _status(state: RunState) -> session_pb2.SessionStatus.ValueType:
    if state.waiting:
        return session_pb2.SESSION_STATUS_PAUSED if state.paused else session_pb2.SESSION_STATUS_WAITING
    return session_pb2.SESSION_STATUS_RUNNING


def _trace_id() -> str:
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else ""
