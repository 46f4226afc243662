"""The lifecycle of sessions as events of the bus: told after what happened is committed, by the log's own place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from agentnet.orchestrator.v1 import event_pb2, session_pb2, task_graph_pb2, turn_pb2
from services.orchestrator.store import Entry, Lease
from services.orchestrator.store_postgres import PostgresSessionStore
from shared.bus import Emitter
from shared.identity import Principal
from shared.postgres import Database

Event = event_pb2.SessionEvent
Told = tuple[str, dict[str, Any]]
_SIGNALS: Final = {"pause": "session.paused", "resume": "session.resumed"}
_STATUS: Final = "SESSION_STATUS_"


class AnnouncedSessionStore(PostgresSessionStore):
    """Tells what is worth telling of each log it writes. Telling never waits and never fails; nothing is told twice:
    an event's id is its session and its place.
    """

    def __init__(self, database: Database, emitter: Emitter, *, log_key: bytes) -> None:
        super().__init__(database, log_key=log_key)
        self._emitter = emitter

    async def start(
        self,
        tenant: str,
        session: session_pb2.Session,
        starter: Principal,
        first: Entry,
        *,
        request_id: str | None,
        graph: task_graph_pb2.TaskGraph | None = None,
    ) -> session_pb2.Session:
        started = await super().start(tenant, session, starter, first, request_id=request_id, graph=graph)
        if started.id == session.id:
            self._tell(tenant, session.id, [first])
        return started

    async def append(
        self,
        lease: Lease,
        entries: Sequence[Entry],
        *,
        session: session_pb2.Session,
        turn: turn_pb2.Turn | None = None,
        release: bool = False,
        signals_taken: int = 0,
    ) -> int:
        signals = await super().append(lease, entries, session=session, turn=turn, release=release, signals_taken=signals_taken)
        self._tell(lease.tenant, lease.session_id, entries)
        return signals

    def _tell(self, tenant: str, session_id: str, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if told := event_of(entry):
                name, fields = told
                place = f"{session_id}/{entry.sequence}"
                self._emitter.emit(tenant, name, event_id=place, session_id=session_id, **fields)


def event_of(entry: Entry) -> Told | None:
    """What the bus is told of one event of a log; None for what only its readers want."""
    tell = _TELLING.get(entry.kind)
    return tell(event_pb2.SessionEvent.FromString(entry.payload)) if tell else None


def _started(event: Event) -> Told:
    session = event.session_started.session
    return "session.started", {"data": {"mode": session.mode, "agents": list(session.agents)}}


def _finished(event: Event) -> Told:
    session = event.session_finished.session
    status = session_pb2.SessionStatus.Name(session.status).removeprefix(_STATUS).lower()
    data = {"status": status, "rounds": session.rounds_executed, "cost_micros_usd": session.cost_micros_usd}
    return "session.finished", {"data": data}


def _signalled(event: Event) -> Told | None:
    name = _SIGNALS.get(event.signal_received.signal)
    return (name, {"subject": event.actor}) if name else None


def _spoken(event: Event) -> Told:
    turn = event.turn_finished.turn
    if turn.HasField("failure"):
        return "agent.error", {"subject": turn.id, "agent": turn.agent, "data": {"message": turn.failure.message}}
    data = {"round": turn.round, "output_tokens": turn.usage.output_tokens}
    return "turn.completed", {"subject": turn.id, "agent": turn.agent, "data": data}


def _interrupted(event: Event) -> Told:
    broken = event.turn_interrupted
    return "agent.error", {"subject": broken.turn_id, "data": {"message": broken.failure.message}}


def _judged(event: Event) -> Told:
    verdict = event.monitor_verdict
    data = {"rule": verdict.rule, "action": verdict.action, "severity": verdict.severity}
    return "violation.raised", {"subject": verdict.turn_id, "data": data}


def _handed(event: Event) -> Told:
    handed = event.handed_off
    data = {"to": handed.target, "reason": handed.reason}
    return "agent.handoff", {"subject": event.actor, "agent": handed.source, "data": data}


_TELLING: Final[Mapping[str, Callable[[Event], Told | None]]] = {
    "session_started": _started,
    "session_finished": _finished,
    "signal_received": _signalled,
    "turn_finished": _spoken,
    "turn_interrupted": _interrupted,
    "monitor_verdict": _judged,
    "handed_off": _handed,
}
