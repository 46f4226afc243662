"""People in the loop: what sessions ask them, what they answer, what they say unasked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from agentnet.orchestrator.v1 import input_pb2, session_pb2
from services.orchestrator.archives import Tenants
from services.orchestrator.errors import InputNotFound, SessionEnded
from services.orchestrator.holds import Leave
from services.orchestrator.sessions import ENDED, Sessions
from services.orchestrator.store import EXPIRE, SessionStore, Signal
from shared.clock import Clock
from shared.errors import FieldRequired, MeshError
from shared.identity import Principal
from shared.ids import Ids
from shared.log import log
from shared.paging import Page

_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class Inputs:
    """The inputs of all sessions, one tenant a call. An answer is a signal: stored first, then taken into the log."""

    sessions: Sessions
    store: SessionStore
    ids: Ids
    leave: Leave
    clock: Clock

    async def every(self, tenant: str, session_id: str) -> Sequence[input_pb2.HumanInput]:
        """What a session waits for, oldest first. Raises SessionNotFound."""
        return (await self.sessions.find(tenant, session_id)).inputs

    async def inbox(self, tenant: str, *, page: Page) -> Sequence[session_pb2.Session]:
        """Sessions that wait for people, oldest first, one more than the page has when there are more."""
        return await self.store.asking(tenant, page=page)

    async def give(
        self, caller: Principal, session_id: str, input_id: str, *, answer: str, approved: bool, request_id: str | None
    ) -> input_pb2.HumanInput:
        """Answers. Raises SessionNotFound, InputNotFound, SessionEnded, FieldRequired for a question unanswered, and
        what policy says of who may not decide what its rules hold.
        """
        session = await self._running(caller.tenant_id, session_id)
        asked = next((one for one in session.inputs if one.id == input_id), None)
        if request_id and await self.store.signalled(caller.tenant_id, session_id, request_id):
            return asked or input_pb2.HumanInput(id=input_id, session_id=session_id)
        if asked is None or overdue(asked, self.clock.now()):
            raise InputNotFound("the session waits for no such input", session_id=session_id, input_id=input_id)
        if asked.kind == input_pb2.INPUT_KIND_QUESTION and not answer:
            raise FieldRequired("answer")
        made = await self.leave.decide(caller, asked, approved=approved, reason=answer) if asked.rules else ""
        signal = Signal(self.ids.new("sig"), "input", caller.subject, input_id, answer, approved, made)
        await self.store.signal(caller.tenant_id, session_id, signal, request_id=request_id)
        return asked

    async def say(self, caller: Principal, session_id: str, content: str, *, request_id: str | None) -> str:
        """Says something to the agents and returns its id. Raises SessionNotFound and SessionEnded."""
        await self._running(caller.tenant_id, session_id)
        signal = Signal(self.ids.new("sig"), "message", caller.subject, content=content)
        await self.store.signal(caller.tenant_id, session_id, signal, request_id=request_id)
        return signal.id

    async def _running(self, tenant: str, session_id: str) -> session_pb2.Session:
        session = await self.sessions.find(tenant, session_id)
        if session.status in ENDED:
            status = session_pb2.SessionStatus.Name(session.status).removeprefix("SESSION_STATUS_")
            raise SessionEnded("the session has ended", session_id=session_id, status=status)
        return session


@dataclass(frozen=True, slots=True)
class Expiry:
    """Tells sessions that nobody answered in time. Many may be at work: a signal of one id is stored once."""

    store: SessionStore
    tenants: Tenants
    clock: Clock
    every: timedelta

    async def run(self) -> None:
        """For as long as the service runs."""
        while True:
            try:
                if told := await self.look():
                    log.info("inputs.expired", inputs=told)
            except MeshError as error:
                log.warning("inputs.not_looked_at", reason=error.reason_name)
            await asyncio.sleep(self.every.total_seconds())

    async def look(self) -> int:
        """Tells of all that is overdue now; how many those are. Raises Unavailable."""
        return sum([await self._look(tenant) for tenant in await self.tenants.tenants()])

    async def _look(self, tenant: str) -> int:
        told, page, more = 0, Page(size=_PAGE), True
        while more:
            found = await self.store.asking(tenant, page=page)
            shown, more = found[:_PAGE], len(found) > _PAGE
            late = [one for session in shown for one in session.inputs if overdue(one, self.clock.now())]
            for asked in late:
                signal = Signal(f"sig_late_{asked.id}", EXPIRE, "mesh", asked.id)
                await self.store.signal(tenant, asked.session_id, signal, request_id=None)
            told += len(late)
            if more:
                last = shown[-1]
                page = Page(_PAGE, (last.start_time.ToDatetime(UTC).isoformat(), last.id))
        return told


def overdue(asked: input_pb2.HumanInput, now: datetime) -> bool:
    """Whether nobody can answer any more."""
    return asked.HasField("expire_time") and asked.expire_time.ToDatetime(UTC) <= now
