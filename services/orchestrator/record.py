"""Writing a session's log: numbers events, shows them live, commits them. The one writer of a session, under its lease."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from opentelemetry import trace

from agentnet.orchestrator.v1 import event_pb2, session_pb2, turn_pb2
from services.orchestrator.errors import LeaseLost
from services.orchestrator.state import SessionState, fold
from services.orchestrator.store import Entry, Lease, SessionStore
from services.orchestrator.tail import LogTail
from shared.clock import Clock

_PAGE = 1000


@dataclass(slots=True)
class SessionLog:
    """State and log of one session, kept in step: what is written is folded, what is folded is written."""

    lease: Lease
    store: SessionStore
    tail: LogTail
    clock: Clock
    state: SessionState = field(default_factory=SessionState)
    _uncommitted: list[Entry] = field(default_factory=list)

    async def load(self) -> None:
        """The committed log, then what the last owner had shown and not committed: no reader may see it change."""
        tenant, session_id = self.lease.tenant, self.lease.session_id
        while entries := await self.store.read(tenant, session_id, self.state.last_sequence, limit=_PAGE):
            self.state = fold(self.state, (event_pb2.SessionEvent.FromString(entry.payload) for entry in entries))
        while live := await self.tail.read(tenant, session_id, self.state.last_sequence):
            events = [event_pb2.SessionEvent.FromString(entry.payload) for entry in live]
            self._uncommitted += [
                Entry(entry.sequence, event.WhichOneof("payload") or "", entry.payload)
                for entry, event in zip(live, events, strict=True)
            ]
            self.state = fold(self.state, events)

    async def show(self, events: Sequence[event_pb2.SessionEvent]) -> None:
        """Writes events to the live tail; they are committed with what ends the turn. Raises LeaseLost."""
        entries = self._numbered(events)
        self._uncommitted += entries
        if not await self.tail.append(self.lease, entries):
            raise LeaseLost("another replica drives the session", session_id=self.lease.session_id)

    async def commit(
        self, events: Sequence[event_pb2.SessionEvent], *, turn: turn_pb2.Turn | None = None, release: bool = False
    ) -> None:
        """Commits events, after all that was only shown, then shows them. Raises LeaseLost."""
        entries = self._numbered(events)
        await self.store.append(
            self.lease,
            [*self._uncommitted, *entries],
            session=self.summary(),
            turn=turn,
            release=release,
            signals_taken=len(self.state.signals),
        )
        self._uncommitted = []
        await self.tail.append(self.lease, entries)

    def summary(self) -> session_pb2.Session:
        """The session as the state has it now."""
        state = self.state
        session = session_pb2.Session()
        session.CopyFrom(state.session)
        session.last_sequence = state.last_sequence
        if state.finished:
            return session
        session.status = _status(state)
        session.rounds_executed = state.rounds_finished
        session.converged = state.converged
        session.cost_micros_usd = state.cost_micros_usd
        session.usage.input_tokens = state.input_tokens
        session.usage.output_tokens = state.output_tokens
        del session.round_similarities[:]
        session.round_similarities.extend(state.similarities)
        return session

    def _numbered(self, events: Sequence[event_pb2.SessionEvent]) -> list[Entry]:
        entries: list[Entry] = []
        for event in events:
            event.session_id = self.lease.session_id
            event.sequence = self.state.last_sequence + 1
            event.time.FromDatetime(self.clock.now())
            event.trace_id = _trace_id()
            event.actor = event.actor or "mesh"
            if event.HasField("session_finished"):
                event.session_finished.session.last_sequence = event.sequence
            self.state = fold(self.state, [event])
            entries.append(Entry(event.sequence, event.WhichOneof("payload") or "", event.SerializeToString()))
        return entries


def _status(state: SessionState) -> session_pb2.SessionStatus.ValueType:
    if state.waiting:
        return session_pb2.SESSION_STATUS_PAUSED if state.paused else session_pb2.SESSION_STATUS_WAITING
    return session_pb2.SESSION_STATUS_RUNNING


def _trace_id() -> str:
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else ""
