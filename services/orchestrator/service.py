"""AgentService and SessionService: convert in, one call of the domain, convert out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from typing import Any, Final

import grpc

from agentnet.orchestrator.v1 import agent_service_pb2 as agents
from agentnet.orchestrator.v1 import agent_service_pb2_grpc, session_service_pb2_grpc
from agentnet.orchestrator.v1 import session_service_pb2 as sessions
from services.orchestrator import convert
from services.orchestrator.agents import Agents
from services.orchestrator.agents.definition import parse_agents
from services.orchestrator.sessions import Sessions
from shared import fields
from shared.clock import Clock
from shared.identity import current
from shared.rpc import deadline

AGENTS = "agentnet.orchestrator.v1.AgentService"
SESSIONS = "agentnet.orchestrator.v1.SessionService"
# What is left of a deadline to answer with the session's id.
_TO_ANSWER: Final = timedelta(milliseconds=200)


class AgentService(agent_service_pb2_grpc.AgentServiceServicer):
    """The registry of agents."""

    def __init__(self, registry: Agents, all_sessions: Sessions) -> None:
        self._agents = registry
        self._sessions = all_sessions

    async def CreateAgent(self, request: agents.CreateAgentRequest, context: Any) -> agents.CreateAgentResponse:
        request_id = fields.request_id(request.request_id)
        made = await self._agents.create(current().tenant_id, convert.agent(request.agent), request_id=request_id)
        return agents.CreateAgentResponse(agent=made)

    async def GetAgent(self, request: agents.GetAgentRequest, context: Any) -> agents.GetAgentResponse:
        found = await self._agents.find(current().tenant_id, *convert.reference(request.name, "name"))
        return agents.GetAgentResponse(agent=found)

    async def ListAgents(self, request: agents.ListAgentsRequest, context: Any) -> agents.ListAgentsResponse:
        chosen, asked = convert.list_agents(request)
        return convert.agents_response(await self._agents.every(current().tenant_id, chosen, page=asked.page), asked)

    async def UpdateAgent(self, request: agents.UpdateAgentRequest, context: Any) -> agents.UpdateAgentResponse:
        name, _ = convert.reference(request.name, "name")
        changes = convert.agent(request.agent, partial=True)
        request_id = fields.request_id(request.request_id)
        made = await self._agents.update(current().tenant_id, name, changes, request_id=request_id)
        return agents.UpdateAgentResponse(agent=made)

    async def SetAgentState(self, request: agents.SetAgentStateRequest, context: Any) -> agents.SetAgentStateResponse:
        moved = await self._agents.set_state(current().tenant_id, *convert.move(request))
        return agents.SetAgentStateResponse(agent=moved)

    async def ImportAgents(self, request: agents.ImportAgentsRequest, context: Any) -> agents.ImportAgentsResponse:
        document = fields.required(request.document, "document", limit=1 << 20)
        wanted = [convert.agent(found) for found in parse_agents(document)]
        found, made = await self._agents.import_all(current().tenant_id, wanted, dry_run=request.dry_run)
        return agents.ImportAgentsResponse(agents=found, created=made)

    async def RunAgent(self, request: agents.RunAgentRequest, context: Any) -> agents.RunAgentResponse:
        session, request_id = convert.single(request), fields.request_id(request.request_id)
        session_id, turn = await self._sessions.run_single(
            current(), session, request_id=request_id, patience=_patience()
        )
        return agents.RunAgentResponse(session_id=session_id, turn=turn)


class SessionService(session_service_pb2_grpc.SessionServiceServicer):
    """Sessions: start, watch, steer."""

    def __init__(self, all_sessions: Sessions, clock: Clock) -> None:
        self._sessions = all_sessions
        self._clock = clock

    async def StartSession(self, request: sessions.StartSessionRequest, context: Any) -> sessions.StartSessionResponse:
        session, request_id = convert.session(request), fields.request_id(request.request_id)
        started = await self._sessions.start(current(), session, request_id=request_id)
        return sessions.StartSessionResponse(session=started)

    async def GetSession(self, request: sessions.GetSessionRequest, context: Any) -> sessions.GetSessionResponse:
        session_id = fields.identifier(request.session_id, "session_id")
        return sessions.GetSessionResponse(session=await self._sessions.find(current().tenant_id, session_id))

    async def ListSessions(self, request: sessions.ListSessionsRequest, context: Any) -> sessions.ListSessionsResponse:
        chosen, asked = convert.list_sessions(request)
        found = await self._sessions.every(current().tenant_id, chosen, page=asked.page)
        return convert.sessions_response(found, asked)

    async def ListTurns(self, request: sessions.ListTurnsRequest, context: Any) -> sessions.ListTurnsResponse:
        session_id, asked = fields.identifier(request.session_id, "session_id"), convert.list_turns(request)
        found = await self._sessions.turns(
            current().tenant_id, session_id, agent=request.agent, round_number=request.round, page=asked.page
        )
        return convert.turns_response(found, asked)

    async def WatchSession(  # type: ignore[override] # the bytes of WatchSessionResponse
        self, request: sessions.WatchSessionRequest, context: Any
    ) -> AsyncIterator[bytes]:
        session_id, after = convert.watch(request)
        async with aclosing(self._sessions.watch(current().tenant_id, session_id, after=after)) as entries:
            async for entry in entries:
                if entry is None:
                    yield convert.heartbeat(self._clock.now(), after)
                else:
                    after = entry.sequence
                    yield convert.envelope(entry.payload)

    async def AdvanceSession(
        self, request: sessions.AdvanceSessionRequest, context: Any
    ) -> sessions.AdvanceSessionResponse:
        return sessions.AdvanceSessionResponse(session=await self._signal(request, "advance"))

    async def PauseSession(self, request: sessions.PauseSessionRequest, context: Any) -> sessions.PauseSessionResponse:
        return sessions.PauseSessionResponse(session=await self._signal(request, "pause"))

    async def ResumeSession(
        self, request: sessions.ResumeSessionRequest, context: Any
    ) -> sessions.ResumeSessionResponse:
        return sessions.ResumeSessionResponse(session=await self._signal(request, "resume"))

    async def CancelSession(
        self, request: sessions.CancelSessionRequest, context: Any
    ) -> sessions.CancelSessionResponse:
        return sessions.CancelSessionResponse(session=await self._signal(request, "cancel"))

    async def _signal(self, request: Any, kind: str) -> Any:
        session_id = fields.identifier(request.session_id, "session_id")
        request_id = fields.request_id(request.request_id)
        return await self._sessions.signal(current(), session_id, kind, request_id=request_id)


def _patience() -> timedelta:
    left = deadline.remaining()
    whole = deadline.DEFAULT_UNARY if left is None else timedelta(seconds=left)
    return max(whole - _TO_ANSWER, timedelta())


def add_to_server(service: SessionService, server: grpc.aio.Server) -> None:
    """Registers SessionService; its stream without a serializer, since the log's own bytes are sent."""
    streams: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "WatchSession": grpc.unary_stream_rpc_method_handler(
            service.WatchSession, sessions.WatchSessionRequest.FromString
        )
    }
    session_service_pb2_grpc.add_SessionServiceServicer_to_server(service, server)
    server.add_registered_method_handlers(SESSIONS, streams)  # in place of the generated one
