"""Writing a session's log: numbers events, shows them live, commits them; one writer a session, under its lease."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from opentelemetry import trace

from agentnet.orchestrator.v1 import event_pb2, session_pb2, turn_pb2
from services.orchestrator.errors import LeaseLost
from services.orchestrator.state import SessionState, fold
from services.orchestrator.store import Entry, Lease, LogTail, SessionStore
from shared.clock import Clock

_PAGE: Final = 1000
# Committed events that stay in the live tail, for readers a little behind.
_KEPT: Final = 1000


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
        """The committed log, then what the last owner had shown and not committed: no reader may see it change.

        Raises LeaseLost.
        """
        tenant, session_id = self.lease.tenant, self.lease.session_id
        while entries := await self.store.read(tenant, session_id, self.state.last_sequence, limit=_PAGE):
            self.state = fold(self.state, (event_pb2.SessionEvent.FromString(entry.payload) for entry in entries))
        live = await self.tail.take_over(self.lease, self.state.last_sequence)
        events = [event_pb2.SessionEvent.FromString(entry.payload) for entry in live]
        self._uncommitted += [_entry(event, entry.payload) for event, entry in zip(events, live, strict=True)]
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
        """Commits events, after all that was only shown, then shows them. Raises LeaseLost.

        Being cancelled takes effect when the commit has ended: what is numbered is written, or the log had a gap.
        """
        writing = asyncio.ensure_future(self._commit(self._numbered(events), turn=turn, release=release))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            (outcome,) = await asyncio.gather(writing, return_exceptions=True)
            if isinstance(outcome, Exception):
                raise outcome from None
            raise

    async def _commit(self, entries: Sequence[Entry], *, turn: turn_pb2.Turn | None, release: bool) -> None:
        await self.store.append(
            self.lease,
            [*self._uncommitted, *entries],
            session=self.summary(),
            turn=turn,
            release=release,
            signals_taken=len(self.state.signals),
        )
        self._uncommitted = []
        await self.tail.append(self.lease, entries, keep_from=entries[0].sequence - _KEPT)

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
            entries.append(_entry(event, event.SerializeToString()))
        return entries


def _entry(event: event_pb2.SessionEvent, payload: bytes) -> Entry:
    return Entry(event.sequence, event.WhichOneof("payload") or "", payload)


def _status(state: SessionState) -> session_pb2.SessionStatus.ValueType:
    if state.waiting:
        return session_pb2.SESSION_STATUS_PAUSED if state.paused else session_pb2.SESSION_STATUS_WAITING
    return session_pb2.SESSION_STATUS_RUNNING


def _trace_id() -> str:
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else ""
