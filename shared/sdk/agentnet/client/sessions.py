"""Sessions and agents: start, watch, steer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from google.protobuf import json_format, struct_pb2

from agentnet.client.calls import resumed, stream, unary
from agentnet.client.transport import Transport
from agentnet.orchestrator.v1 import (
    agent_pb2,
    agent_service_pb2,
    agent_service_pb2_grpc,
    event_pb2,
    session_pb2,
    session_service_pb2,
    session_service_pb2_grpc,
    turn_pb2,
)

WATCH_PATIENCE_SECONDS = 60.0


class Agents:
    """The registry of agents. Versions never change; an update makes a new one."""

    def __init__(self, transport: Transport) -> None:
        self._stub = agent_service_pb2_grpc.AgentServiceStub(transport.channel)
        self._call = transport.options

    async def create(self, agent: agent_pb2.Agent, *, request_id: str = "") -> agent_pb2.Agent:
        """Stores a version. ALREADY_EXISTS when it is there."""
        request = agent_service_pb2.CreateAgentRequest(agent=agent, request_id=request_id)
        return (await unary(self._stub.CreateAgent(request, **self._call()))).agent

    async def get(self, name: str) -> agent_pb2.Agent:
        """One version: `Athena` or `Athena@1.0.0`."""
        return (await unary(self._stub.GetAgent(agent_service_pb2.GetAgentRequest(name=name), **self._call()))).agent

    async def list(self, *, capability: str = "", order_by: str = "") -> AsyncIterator[agent_pb2.Agent]:
        """All versions of all agents, page by page."""
        token = ""
        while True:
            request = agent_service_pb2.ListAgentsRequest(page_token=token, capability=capability, order_by=order_by)
            page = await unary(self._stub.ListAgents(request, **self._call()))
            for agent in page.agents:
                yield agent
            if not (token := page.next_page_token):
                return

    async def update(self, name: str, changes: agent_pb2.Agent) -> agent_pb2.Agent:
        """Makes the next version from the newest one."""
        request = agent_service_pb2.UpdateAgentRequest(name=name, agent=changes)
        return (await unary(self._stub.UpdateAgent(request, **self._call()))).agent

    async def set_state(self, name: str, state: agent_pb2.AgentState.ValueType) -> agent_pb2.Agent:
        """Moves a version on: draft, active, archived."""
        request = agent_service_pb2.SetAgentStateRequest(name=name, state=state)
        return (await unary(self._stub.SetAgentState(request, **self._call()))).agent

    async def import_document(self, document: str, *, dry_run: bool = False) -> agent_service_pb2.ImportAgentsResponse:
        """Makes the agents of a YAML or JSON document, all or none. Raises AgentNetError (AGENT_FILE_INVALID), whose
        facts name `line` and `path`.
        """
        request = agent_service_pb2.ImportAgentsRequest(document=document, dry_run=dry_run)
        return await unary(self._stub.ImportAgents(request, **self._call()))

    async def run(self, name: str, prompt: str, *, timeout: float = 120.0) -> turn_pb2.Turn:
        """One agent, one prompt, one finished turn. `timeout` is in seconds; the session goes on without the caller."""
        request = agent_service_pb2.RunAgentRequest(name=name, prompt=prompt)
        return (await unary(self._stub.RunAgent(request, **self._call(timeout=timeout)))).turn


class Sessions:
    """Agents on a topic. A session runs whether or not anyone watches."""

    def __init__(self, transport: Transport) -> None:
        self._stub = session_service_pb2_grpc.SessionServiceStub(transport.channel)
        self._call = transport.options

    async def start(
        self,
        topic: str,
        *,
        agents: Sequence[str],
        mode: str = "",
        max_rounds: int = 0,
        convergence: bool = True,
        manual_advance: bool = False,
        metadata: Mapping[str, Any] | None = None,
        request_id: str = "",
    ) -> session_pb2.Session:
        """Accepts a session and returns at once."""
        request = session_service_pb2.StartSessionRequest(
            topic=topic,
            agents=agents,
            mode=mode,
            max_rounds=max_rounds,
            convergence=convergence,
            manual_advance=manual_advance,
            metadata=json_format.ParseDict(dict(metadata or {}), struct_pb2.Struct()),
            request_id=request_id,
        )
        return (await unary(self._stub.StartSession(request, **self._call()))).session

    def watch(self, session_id: str, *, after: int = 0) -> AsyncIterator[event_pb2.SessionEvent]:
        """The session's events after a sequence, live until it ends.

        A lost connection or a restarted mesh is bridged for up to a minute: no gap, no event twice.
        """
        return resumed(
            lambda seen: self._events(session_id, seen),
            after=after,
            is_last=lambda event: event.HasField("session_finished"),
            patience_seconds=WATCH_PATIENCE_SECONDS,
        )

    async def _events(self, session_id: str, after: int) -> AsyncIterator[event_pb2.SessionEvent]:
        request = session_service_pb2.WatchSessionRequest(session_id=session_id, after_sequence=after)
        async for answer in stream(self._stub.WatchSession(request, **self._call(timeout=None))):
            if answer.HasField("event"):
                yield answer.event

    async def get(self, session_id: str) -> session_pb2.Session:
        """The state summary."""
        request = session_service_pb2.GetSessionRequest(session_id=session_id)
        return (await unary(self._stub.GetSession(request, **self._call()))).session

    async def list(self, *, mode: str = "", order_by: str = "") -> AsyncIterator[session_pb2.Session]:
        """All sessions, newest first, page by page."""
        token = ""
        while True:
            request = session_service_pb2.ListSessionsRequest(page_token=token, mode=mode, order_by=order_by)
            page = await unary(self._stub.ListSessions(request, **self._call()))
            for session in page.sessions:
                yield session
            if not (token := page.next_page_token):
                return

    async def turns(self, session_id: str, *, agent: str = "") -> AsyncIterator[turn_pb2.Turn]:
        """Finished turns, oldest first, page by page."""
        token = ""
        while True:
            request = session_service_pb2.ListTurnsRequest(session_id=session_id, page_token=token, agent=agent)
            page = await unary(self._stub.ListTurns(request, **self._call()))
            for turn in page.turns:
                yield turn
            if not (token := page.next_page_token):
                return

    async def advance(self, session_id: str) -> session_pb2.Session:
        """Lets a session that waits run one more round."""
        request = session_service_pb2.AdvanceSessionRequest(session_id=session_id)
        return (await unary(self._stub.AdvanceSession(request, **self._call()))).session

    async def pause(self, session_id: str) -> session_pb2.Session:
        """Pauses after the current turn."""
        request = session_service_pb2.PauseSessionRequest(session_id=session_id)
        return (await unary(self._stub.PauseSession(request, **self._call()))).session

    async def resume(self, session_id: str) -> session_pb2.Session:
        """Lets a paused session go on."""
        request = session_service_pb2.ResumeSessionRequest(session_id=session_id)
        return (await unary(self._stub.ResumeSession(request, **self._call()))).session

    async def cancel(self, session_id: str) -> session_pb2.Session:
        """Ends a session now."""
        request = session_service_pb2.CancelSessionRequest(session_id=session_id)
        return (await unary(self._stub.CancelSession(request, **self._call()))).session
