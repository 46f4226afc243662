"""Sessions as callers know them: start, read, watch, signal."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from agentnet.orchestrator.v1 import event_pb2, session_pb2, turn_pb2
from services.orchestrator.agents import Agents
from services.orchestrator.errors import SessionEnded, SessionNotFound, SessionStateInvalid
from services.orchestrator.store import Entry, SessionStore, Signal
from services.orchestrator.watch import Watcher
from shared.clock import Clock
from shared.errors import from_failure
from shared.identity import Principal
from shared.ids import Ids
from shared.paging import Page

ENDED: Final = frozenset(
    {
        session_pb2.SESSION_STATUS_COMPLETED,
        session_pb2.SESSION_STATUS_FAILED,
        session_pb2.SESSION_STATUS_CANCELLED,
    }
)
_FITTING: Final = {
    "advance": lambda session: session.manual_advance,
    "resume": lambda session: session.status == session_pb2.SESSION_STATUS_PAUSED,
}


@dataclass(frozen=True, slots=True)
class Sessions:
    """The sessions of all tenants, one tenant a call."""

    store: SessionStore
    agents: Agents
    watcher: Watcher
    clock: Clock
    ids: Ids
    heartbeat: timedelta

    async def start(
        self, starter: Principal, session: session_pb2.Session, *, request_id: str | None
    ) -> session_pb2.Session:
        """Accepts a session: agents are resolved and pinned. Raises AgentNotFound and AgentArchived."""
        pinned = [await self._pinned(starter.tenant_id, reference) for reference in session.agents]
        del session.agents[:]
        session.agents.extend(pinned)
        session.id = self.ids.new("ses")
        session.status = session_pb2.SESSION_STATUS_PENDING
        session.topic_final = session.topic_start
        session.last_sequence = 1
        session.start_time.FromDatetime(self.clock.now())
        started = event_pb2.SessionStarted(session=session)
        event = event_pb2.SessionEvent(
            session_id=session.id, sequence=1, actor=f"user:{starter.subject}", session_started=started
        )
        event.time.CopyFrom(session.start_time)
        first = Entry(1, "session_started", event.SerializeToString())
        return await self.store.start(starter.tenant_id, session, starter, first, request_id=request_id)

    async def find(self, tenant: str, session_id: str) -> session_pb2.Session:
        """Raises SessionNotFound."""
        session = await self.store.find(tenant, session_id)
        if session is None:
            raise SessionNotFound(f"no session {session_id}", session_id=session_id)
        return session

    async def every(
        self, tenant: str, *, status: int, mode: str, newest_first: bool, page: Page
    ) -> Sequence[session_pb2.Session]:
        """Summaries by start."""
        return await self.store.every(tenant, status=status, mode=mode, newest_first=newest_first, page=page)

    async def turns(
        self, tenant: str, session_id: str, *, agent: str, round_number: int, page: Page
    ) -> Sequence[turn_pb2.Turn]:
        """Finished turns, oldest first. Raises SessionNotFound."""
        await self.find(tenant, session_id)
        return await self.store.turns(tenant, session_id, agent=agent, round_number=round_number, page=page)

    def watch(self, tenant: str, session_id: str, *, after: int) -> AsyncGenerator[Entry | None, None]:
        """See Watcher.watch."""
        return self.watcher.watch(tenant, session_id, after=after, heartbeat=self.heartbeat)

    async def signal(
        self, caller: Principal, session_id: str, kind: str, *, request_id: str | None
    ) -> session_pb2.Session:
        """Asks the driver to pause, resume, advance or cancel. Raises SessionNotFound, SessionEnded and
        SessionStateInvalid.
        """
        session = await self.find(caller.tenant_id, session_id)
        status = session_pb2.SessionStatus.Name(session.status).removeprefix("SESSION_STATUS_")
        if session.status in ENDED:
            raise SessionEnded("the session has ended", session_id=session_id, status=status)
        fits = _FITTING.get(kind)
        if fits and not fits(session):
            raise SessionStateInvalid(f"the session does not wait for {kind}", session_id=session_id, status=status)
        signal = Signal(self.ids.new("sig"), kind, caller.subject)
        await self.store.signal(caller.tenant_id, session_id, signal, request_id=request_id)
        return session

    async def run_single(
        self, starter: Principal, session: session_pb2.Session, *, request_id: str | None
    ) -> tuple[str, turn_pb2.Turn]:
        """Starts a session of one turn and waits for it. Raises what the session failed with."""
        started = await self.start(starter, session, request_id=request_id)
        turn = turn_pb2.Turn()
        async for entry in self.watch(starter.tenant_id, started.id, after=0):
            if entry is None:
                continue
            event = event_pb2.SessionEvent.FromString(entry.payload)
            if event.HasField("turn_finished"):
                turn.CopyFrom(event.turn_finished.turn)
            if event.HasField("session_finished") and event.session_finished.session.HasField("failure"):
                raise from_failure(event.session_finished.session.failure)
        return started.id, turn

    async def _pinned(self, tenant: str, reference: str) -> str:
        name, _, version = reference.partition("@")
        agent = await self.agents.runnable(tenant, name, version)
        return f"{agent.name}@{agent.version}"
