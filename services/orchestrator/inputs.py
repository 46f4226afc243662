"""People in the loop: what sessions ask them, what they answer, what they say unasked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentnet.orchestrator.v1 import input_pb2, session_pb2
from services.orchestrator.errors import InputNotFound, SessionEnded
from services.orchestrator.sessions import ENDED, Sessions
from services.orchestrator.store import SessionStore, Signal
from shared.errors import FieldRequired
from shared.identity import Principal
from shared.ids import Ids
from shared.paging import Page


@dataclass(frozen=True, slots=True)
class Inputs:
    """The inputs of all sessions, one tenant a call. An answer is a signal: stored first, then taken into the log."""

    sessions: Sessions
    store: SessionStore
    ids: Ids

    async def every(self, tenant: str, session_id: str) -> Sequence[input_pb2.HumanInput]:
        """What a session waits for, oldest first. Raises SessionNotFound."""
        return (await self.sessions.find(tenant, session_id)).inputs

    async def inbox(self, tenant: str, *, page: Page) -> Sequence[session_pb2.Session]:
        """Sessions that wait for people, oldest first, one more than the page has when there are more."""
        return await self.store.asking(tenant, page=page)

    async def give(
        self, caller: Principal, session_id: str, input_id: str, *, answer: str, approved: bool, request_id: str | None
    ) -> input_pb2.HumanInput:
        """Answers. Raises SessionNotFound, InputNotFound, SessionEnded, and FieldRequired for a question unanswered."""
        session = await self._running(caller.tenant_id, session_id)
        asked = next((one for one in session.inputs if one.id == input_id), None)
        if asked is None:
            if request_id and await self.store.signalled(caller.tenant_id, session_id, request_id):
                return input_pb2.HumanInput(id=input_id, session_id=session_id)
            raise InputNotFound("the session waits for no such input", session_id=session_id, input_id=input_id)
        if asked.kind == input_pb2.INPUT_KIND_QUESTION and not answer:
            raise FieldRequired("answer")
        signal = Signal(self.ids.new("sig"), "input", caller.subject, input_id, answer, approved)
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
