"""Agents and sessions for those who only speak to them: Athena answers what she was asked, word by word; asked to `Wait.` she
does until she is cancelled, and to `Ask.` until she is answered.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from agentnet.common.v1 import usage_pb2
from agentnet.orchestrator.v1 import (
    agent_pb2,
    agent_service_pb2,
    agent_service_pb2_grpc,
    event_pb2,
    input_pb2,
    input_service_pb2,
    input_service_pb2_grpc,
    session_pb2,
    session_service_pb2,
    session_service_pb2_grpc,
    turn_pb2,
)
from shared.errors import FailedPrecondition, NotFound, Reason


class AgentNotFound(NotFound):
    reason = Reason.ERROR_REASON_AGENT_NOT_FOUND


class SessionNotFound(NotFound):
    reason = Reason.ERROR_REASON_SESSION_NOT_FOUND


class SessionEnded(FailedPrecondition):
    reason = Reason.ERROR_REASON_SESSION_ENDED


class ScriptedAgents(agent_service_pb2_grpc.AgentServiceServicer):
    async def ListAgents(self, request: Any, context: Any) -> Any:
        agent = agent_pb2.Agent(name="Athena", version="1.0.0", description="Knows.")
        agent.create_time.FromSeconds(1_800_000_000)
        return agent_service_pb2.ListAgentsResponse(agents=[agent])


class ScriptedSessions(session_service_pb2_grpc.SessionServiceServicer, input_service_pb2_grpc.InputServiceServicer):
    def __init__(self) -> None:
        self.topics: dict[str, str] = {}
        self.named: dict[str, str] = {}
        """Sessions by the request that started them."""
        self.cancelled = asyncio.Event()
        self.given: list[input_service_pb2.GiveInputRequest] = []

    async def StartSession(self, request: session_service_pb2.StartSessionRequest, context: Any) -> Any:
        (agent,) = request.agents
        if agent.partition("@")[0] != "Athena":
            raise AgentNotFound(f"no agent {agent}", agent=agent)
        session_id = self.named.get(request.request_id) or f"ses_{len(self.topics) + 1}"
        if request.request_id:
            self.named[request.request_id] = session_id
        self.topics[session_id] = request.topic
        session = session_pb2.Session(id=session_id, agents=["Athena@1.0.0"])
        session.start_time.FromSeconds(1_800_000_000)
        return session_service_pb2.StartSessionResponse(session=session)

    async def WatchSession(self, request: session_service_pb2.WatchSessionRequest, context: Any) -> Any:
        if self.topics[request.session_id] == "Wait.":
            await self.cancelled.wait()
        words = self.topics[request.session_id].split(" ")
        for number, word in enumerate(words):
            text = word if number == len(words) - 1 else f"{word} "
            yield _response(tokens_produced=event_pb2.TokensProduced(text=text, token_count=1))
        usage = usage_pb2.Usage(input_tokens=11, output_tokens=len(words))
        yield _response(turn_finished=event_pb2.TurnFinished(turn=turn_pb2.Turn(usage=usage)))
        yield _response(session_finished=event_pb2.SessionFinished(session=session_pb2.Session(id=request.session_id)))

    async def ListSessions(self, request: Any, context: Any) -> Any:
        found = [session_pb2.Session(id=one, topic_start=topic) for one, topic in self.topics.items()]
        return session_service_pb2.ListSessionsResponse(sessions=found)

    async def GetSession(self, request: Any, context: Any) -> Any:
        if request.session_id not in self.topics:
            raise SessionNotFound(f"no session {request.session_id}")
        session = session_pb2.Session(id=request.session_id, agents=["Athena@1.0.0"])
        session.start_time.FromSeconds(1_800_000_000)
        match self.topics[request.session_id]:
            case "Ask." if not self.given:
                session.status = session_pb2.SESSION_STATUS_AWAITING_INPUT
                asked = {"question": "Which one?", "kind": input_pb2.INPUT_KIND_QUESTION}
                session.inputs.add(id="inp_1", session_id=session.id, **asked).request_time.FromSeconds(1_800_000_001)
            case "Wait." if not self.cancelled.is_set():
                session.status = session_pb2.SESSION_STATUS_RUNNING
            case topic:
                cancelled = topic == "Wait."
                ended = session_pb2.SESSION_STATUS_CANCELLED if cancelled else session_pb2.SESSION_STATUS_COMPLETED
                session.status, session.result = ended, self.given[-1].answer if topic == "Ask." else topic
                session.end_time.FromSeconds(1_800_000_002)
        return session_service_pb2.GetSessionResponse(session=session)

    async def GiveInput(self, request: input_service_pb2.GiveInputRequest, context: Any) -> Any:
        self.given.append(request)
        return input_service_pb2.GiveInputResponse()

    async def ListTurns(self, request: Any, context: Any) -> Any:
        return session_service_pb2.ListTurnsResponse(turns=[turn_pb2.Turn(session_id=request.session_id)])

    async def CancelSession(self, request: Any, context: Any) -> Any:
        if self.topics.get(request.session_id) != "Wait." or self.cancelled.is_set():
            raise SessionEnded("it has ended")
        self.cancelled.set()
        return session_service_pb2.CancelSessionResponse()


def _response(**what: Any) -> session_service_pb2.WatchSessionResponse:
    return session_service_pb2.WatchSessionResponse(event=event_pb2.SessionEvent(**what))


def serve_orchestrator(server: grpc.aio.Server) -> ScriptedSessions:
    sessions = ScriptedSessions()
    agent_service_pb2_grpc.add_AgentServiceServicer_to_server(ScriptedAgents(), server)
    session_service_pb2_grpc.add_SessionServiceServicer_to_server(sessions, server)
    input_service_pb2_grpc.add_InputServiceServicer_to_server(sessions, server)
    return sessions
