"""Sessions as callers know them: start, read, watch, signal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from agentnet.common.v1 import failure_pb2
from agentnet.orchestrator.v1 import event_pb2, session_pb2, turn_pb2
from services.orchestrator.agents import Agents
from services.orchestrator.agents.inputs import check_input
from services.orchestrator.errors import BudgetExhausted, SessionEnded, SessionNotFound, SessionStateInvalid
from services.orchestrator.modes import cast
from services.orchestrator.narrowing import carry
from services.orchestrator.state import ASKING
from services.orchestrator.store import Entry, SessionFilter, SessionStore, Signal
from services.orchestrator.watch import Watcher
from shared.clock import Clock
from shared.errors import DeadlineExceeded, MeshError, Reason, from_failure
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
        """Accepts a session: agents are resolved and pinned. Raises AgentNotFound, AgentArchived and
        AgentInputInvalid.
        """
        pinned = [await self._pinned(starter.tenant_id, reference) for reference in session.agents]
        if session.mode == "single":
            check_input(await self.agents.find(starter.tenant_id, *pinned[0].split("@")), session.topic_start)
        del session.agents[:]
        session.agents.extend(pinned)
        cast.pin(session)
        session.id = session.id or self.ids.new("ses")
        carry(starter, session)
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

    async def every(self, tenant: str, chosen: SessionFilter, *, page: Page) -> Sequence[session_pb2.Session]:
        """Summaries by start."""
        return await self.store.every(tenant, chosen, page=page)

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
        if request_id and await self.store.signalled(caller.tenant_id, session_id, request_id):
            return session
        status = session_pb2.SessionStatus.Name(session.status).removeprefix("SESSION_STATUS_")
        if session.status in ENDED:
            raise SessionEnded("the session has ended", session_id=session_id, status=status)
        if not await self._fits(caller.tenant_id, session, kind):
            raise SessionStateInvalid(f"the session does not wait for {kind}", session_id=session_id, status=status)
        signal = Signal(self.ids.new("sig"), kind, caller.subject)
        await self.store.signal(caller.tenant_id, session_id, signal, request_id=request_id)
        return session

    async def run_single(
        self, starter: Principal, session: session_pb2.Session, *, request_id: str | None, patience: timedelta
    ) -> tuple[str, turn_pb2.Turn]:
        """Starts a session of one turn and waits for it. Raises what the session failed with, SessionEnded when it was
        cancelled, and DeadlineExceeded with its id when it takes longer than `patience`.
        """
        started = await self.start(starter, session, request_id=request_id)
        try:
            async with asyncio.timeout(patience.total_seconds()):
                return started.id, await self._only_turn(starter.tenant_id, started.id)
        except TimeoutError:
            raise DeadlineExceeded("the session goes on; watch it", session_id=started.id) from None

    async def _only_turn(self, tenant: str, session_id: str) -> turn_pb2.Turn:
        turn = turn_pb2.Turn()
        async with aclosing(self.watch(tenant, session_id, after=0)) as entries:
            async for entry in entries:
                event = event_pb2.SessionEvent.FromString(entry.payload if entry else b"")
                if event.HasField("turn_finished"):
                    turn.CopyFrom(event.turn_finished.turn)
                elif event.turn_interrupted.failure.reason in ASKING:
                    raise _refused(event.turn_interrupted.failure, session_id)
                elif event.HasField("session_finished"):
                    _check(event.session_finished.session)
        return turn

    async def _fits(self, tenant: str, session: session_pb2.Session, kind: str) -> bool:
        if kind == "advance":
            return session.manual_advance
        if kind != "resume" or session.status == session_pb2.SESSION_STATUS_PAUSED:
            return True
        # A pause that was asked for and takes effect when the turn has ended can be taken back before.
        asked = [signal.kind for signal in await self.store.signals(tenant, session.id)]
        return [known for known in asked if known in ("pause", "resume")][-1:] == ["pause"]

    async def _pinned(self, tenant: str, reference: str) -> str:
        name, _, version = reference.partition("@")
        agent = await self.agents.runnable(tenant, name, version)
        return f"{agent.name}@{agent.version}"


def _check(ended: session_pb2.Session) -> None:
    """Raises what a session of one turn ended with, unless that is its turn."""
    if ended.status == session_pb2.SESSION_STATUS_CANCELLED:
        raise SessionEnded("the session was cancelled", session_id=ended.id, status="CANCELLED")
    if ended.HasField("failure"):
        raise _refused(ended.failure, ended.id)


def _refused(failure: failure_pb2.Failure, session_id: str) -> MeshError:
    exhausted = failure.reason == Reason.ERROR_REASON_BUDGET_EXHAUSTED
    error = BudgetExhausted(failure.message) if exhausted else from_failure(failure)
    error.facts = {**failure.metadata, "session_id": session_id}
    return error
