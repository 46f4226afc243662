"""The tenant's agents as answerers: each call is a session of one agent, which lives on in its log."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Final

import grpc
from grpc import StatusCode

from agentnet.orchestrator.v1 import agent_pb2, agent_service_pb2, event_pb2, session_pb2, session_service_pb2
from agentnet.orchestrator.v1.agent_service_pb2_grpc import AgentServiceStub
from agentnet.orchestrator.v1.session_service_pb2_grpc import SessionServiceStub
from services.gateway.facades.ask import (
    AnswerUndone,
    Ask,
    Began,
    Ended,
    Message,
    Pieces,
    Reason,
    Role,
    Said,
    Spent,
    Unsupported,
    whole,
)
from services.gateway.facades.models import spent
from services.gateway.limits import Limits
from shared.errors import MeshError, from_failure
from shared.identity import current
from shared.log import log
from shared.rpc.status import from_rpc

PREFIX: Final = "agent:"
SERVICES: Final = ("agentnet.orchestrator.v1.AgentService", "agentnet.orchestrator.v1.SessionService")
_MOST: Final = 500
_NAMES: Final = {Role.USER: "User", Role.ASSISTANT: "You", Role.SYSTEM: "Instructions", Role.TOOL: "Tool"}
Events = AsyncGenerator[event_pb2.SessionEvent, None]


class Agents:
    """Answers by running an agent."""

    def __init__(self, channel: grpc.aio.Channel, limits: Limits) -> None:
        self._agents = AgentServiceStub(channel)
        self._sessions = SessionServiceStub(channel)
        self._limits = limits

    async def answer(self, ask: Ask) -> Pieces:
        """A caller who leaves early ends the session."""
        tenant = current().tenant_id
        session = await self.start(ask)
        finished = False
        try:
            yield Began(session.id, PREFIX + session.agents[0], session.start_time.seconds)
            events = self.watch(session.id)
            async with aclosing(_pieces(_settled(events) if ask.whole else events)) as pieces:
                async for piece in pieces:
                    finished = finished or isinstance(piece, Ended)
                    yield piece
                    if isinstance(piece, Ended):
                        await self._limits.spent(tenant, piece.spent.total)
        finally:
            if not finished:
                await self._leave(session.id)

    async def follow(self, session_id: str, *, whole: bool = False) -> Pieces:
        """A session's pieces from its first, live or past, or when it is over; leaving ends nothing. Raises
        MeshError.
        """
        session = await self.session(session_id)
        yield Began(session_id, PREFIX + session.agents[0], session.start_time.seconds)
        events = self.watch(session_id)
        async with aclosing(_pieces(_settled(events) if whole else events)) as pieces:
            async for piece in pieces:
                yield piece

    async def finished(self, session_id: str) -> str:
        """What a session said, once it ends; its tokens are counted. Raises MeshError."""
        found = await whole(self.follow(session_id, whole=True))
        await self._limits.spent(current().tenant_id, found.ended.spent.total)
        return found.text

    async def ended(self, session_id: str) -> bool:
        """Whether nothing more comes of it. Raises MeshError."""
        return (await self.session(session_id)).HasField("end_time")

    async def session(self, session_id: str) -> session_pb2.Session:
        """As it is now. Raises MeshError."""
        request = session_service_pb2.GetSessionRequest(session_id=session_id)
        found: session_service_pb2.GetSessionResponse = await self._unary(self._sessions.GetSession(request))
        return found.session

    async def agents(self) -> Sequence[agent_pb2.Agent]:
        """Every version that can be run."""
        request = agent_service_pb2.ListAgentsRequest(page_size=_MOST, state=agent_pb2.AGENT_STATE_ACTIVE)
        found: agent_service_pb2.ListAgentsResponse = await self._unary(self._agents.ListAgents(request))
        return found.agents

    async def start(self, ask: Ask) -> session_pb2.Session:
        """A session of the agent, counted as a call of it. Raises MeshError."""
        await self._limits.use_model(current().tenant_id, ask.model)
        request = session_service_pb2.StartSessionRequest(
            topic=prompt(ask), mode="single", agents=[ask.model.removeprefix(PREFIX)], request_id=ask.generation_id
        )
        started: session_service_pb2.StartSessionResponse = await self._unary(self._sessions.StartSession(request))
        return started.session

    async def watch(self, session_id: str) -> Events:
        """The session's log, from its first event to its last. Raises MeshError."""
        call = self._sessions.WatchSession(session_service_pb2.WatchSessionRequest(session_id=session_id))
        try:
            async for answer in call:
                if answer.HasField("event"):
                    yield answer.event
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error) from error
        finally:
            call.cancel()

    async def cancel(self, session_id: str) -> None:
        """Ends the session. Raises MeshError."""
        request = session_service_pb2.CancelSessionRequest(session_id=session_id)
        await self._unary(self._sessions.CancelSession(request))

    async def end(self, session_id: str) -> None:
        """Ends the session, which may have ended. Raises MeshError."""
        try:
            await self.cancel(session_id)
        except MeshError as error:
            if error.code is not StatusCode.FAILED_PRECONDITION:
                raise

    async def _leave(self, session_id: str) -> None:
        try:
            await self.cancel(session_id)
        except MeshError as error:
            log.info("facade.cancel_failed", session_id=session_id, reason=error.reason_name)

    async def _unary(self, call: Any) -> Any:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error) from error


def _undone(event: event_pb2.SessionEvent) -> str:
    """The turn whose text before it is void; empty: none's is."""
    if event.failed_over.restarted:
        return event.failed_over.turn_id
    return event.turn_interrupted.turn_id


async def _settled(events: Events) -> Events:
    """A session's log when it is over, without what a turn said before it began anew."""
    held: list[event_pb2.SessionEvent] = []
    async with aclosing(events):
        async for event in events:
            if turn := _undone(event):
                held = [one for one in held if one.tokens_produced.turn_id != turn]
            else:
                held.append(event)
    for event in held:
        yield event


async def _pieces(events: Events) -> AsyncGenerator[Said | Ended, None]:
    """What the log says to a reader who cannot take anything back."""
    said, used = False, Spent()
    async with aclosing(events):
        async for event in events:
            match event.WhichOneof("payload"):
                case "tokens_produced":
                    said = True
                    yield Said(event.tokens_produced.text)
                case "turn_finished":
                    used = spent(event.turn_finished.turn.usage)
                case "turn_interrupted" | "failed_over" if said and _undone(event):
                    raise AnswerUndone("the agent's answer broke off; ask again")
                case "session_finished":
                    yield _end(event.session_finished.session, used)


def _end(session: session_pb2.Session, used: Spent) -> Ended:
    if session.HasField("failure"):
        raise from_failure(session.failure)
    filtered = session.stop_reason == session_pb2.STOP_REASON_POLICY_BLOCKED
    return Ended(Reason.FILTER if filtered else Reason.STOP, used)


def prompt(ask: Ask) -> str:
    """The conversation as the one text an agent is given. Raises Unsupported for what an agent brings itself."""
    if ask.tools:
        raise Unsupported("tools", "are an agent's own; give them to the agent")
    if ask.schema is not None:
        raise Unsupported("response_format", "is an agent's own; give it an output schema")
    (*before, last) = ask.messages or (Message(Role.USER, ()),)
    if not before:
        return last.text
    lines = "\n\n".join(f"{message.name or _NAMES[message.role]}: {message.text}" for message in ask.messages)
    return f"Continue this conversation with your next answer alone.\n\n{lines}"
