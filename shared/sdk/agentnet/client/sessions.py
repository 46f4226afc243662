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
    input_pb2,
    input_service_pb2,
    input_service_pb2_grpc,
    session_pb2,
    session_service_pb2,
    session_service_pb2_grpc,
    turn_pb2,
    turn_service_pb2,
    turn_service_pb2_grpc,
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

    async def list(self, *, name: str = "", capability: str = "", order_by: str = "") -> AsyncIterator[agent_pb2.Agent]:
        """All versions of all agents, or of one by name, that are not archived, page by page."""
        token = ""
        while True:
            request = agent_service_pb2.ListAgentsRequest(
                page_token=token, name=name, capability=capability, order_by=order_by
            )
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
        self._inputs = input_service_pb2_grpc.InputServiceStub(transport.channel)
        self._turns = turn_service_pb2_grpc.TurnServiceStub(transport.channel)
        self._call = transport.options

    async def start(
        self,
        topic: str,
        *,
        agents: Sequence[str],
        mode: str = "",
        strategy: str = "",
        max_rounds: int = 0,
        convergence: bool = True,
        measures: Sequence[session_pb2.MeasureRule] = (),
        options: session_pb2.SessionOptions | None = None,
        limits: session_pb2.SessionLimits | None = None,
        require_approval: Sequence[str] = (),
        manual_advance: bool = False,
        metadata: Mapping[str, Any] | None = None,
        team: str = "",
        request_id: str = "",
    ) -> session_pb2.Session:
        """Accepts a session and returns at once. `require_approval` names tools, "*" all, a person must approve.

        `team` is whose budgets it spends from too.
        """
        policy = session_pb2.ConvergencePolicy(enabled=convergence, measures=measures) if measures else None
        request = session_service_pb2.StartSessionRequest(
            topic=topic,
            agents=agents,
            mode=mode,
            strategy=strategy,
            max_rounds=max_rounds,
            convergence=convergence,
            convergence_policy=policy,
            options=options,
            limits=limits,
            require_approval=require_approval,
            manual_advance=manual_advance,
            metadata=json_format.ParseDict(dict(metadata or {}), struct_pb2.Struct()),
            team=team,
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

    async def list(
        self,
        *,
        mode: str = "",
        order_by: str = "",
        archived: bool | None = None,
        status: session_pb2.SessionStatus.ValueType = session_pb2.SESSION_STATUS_UNSPECIFIED,
        stop_reason: session_pb2.StopReason.ValueType = session_pb2.STOP_REASON_UNSPECIFIED,
        agent: str = "",
        metadata: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[session_pb2.Session]:
        """All sessions, newest first, page by page; `archived` ones lie in the archive, or do not. `agent` takes part
        in them, and their metadata holds all of `metadata`.
        """
        token = ""
        while True:
            request = session_service_pb2.ListSessionsRequest(
                page_token=token,
                mode=mode,
                order_by=order_by,
                archived=archived,
                status=status,
                stop_reason=stop_reason,
                agent=agent,
                metadata=json_format.ParseDict(dict(metadata or {}), struct_pb2.Struct()),
            )
            page = await unary(self._stub.ListSessions(request, **self._call()))
            for session in page.sessions:
                yield session
            if not (token := page.next_page_token):
                return

    async def turns(self, session_id: str, *, agent: str = "", round_number: int = 0) -> AsyncIterator[turn_pb2.Turn]:
        """Finished turns, oldest first, page by page; 0 is every round."""
        token = ""
        while True:
            request = session_service_pb2.ListTurnsRequest(
                session_id=session_id, page_token=token, agent=agent, round=round_number
            )
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

    async def inputs(self, session_id: str) -> Sequence[input_pb2.HumanInput]:
        """What the session waits for people to say."""
        request = input_service_pb2.ListInputsRequest(session_id=session_id, page_size=500)
        return (await unary(self._inputs.ListInputs(request, **self._call()))).inputs

    async def inbox(self, *, agent: str = "") -> Sequence[input_pb2.HumanInput]:
        """What all sessions of the tenant wait for people to say, those that started first first."""
        found: list[input_pb2.HumanInput] = []
        token = ""
        while True:
            request = input_service_pb2.ListOpenInputsRequest(page_token=token, agent=agent)
            answer = await unary(self._inputs.ListOpenInputs(request, **self._call()))
            found += answer.inputs
            if not (token := answer.next_page_token):
                return found

    async def answer(
        self, session_id: str, input_id: str, answer: str = "", *, approved: bool = False, request_id: str = ""
    ) -> input_pb2.HumanInput:
        """Answers a question, or approves a call of a tool (without `approved`: refuses it). The first counts."""
        request = input_service_pb2.GiveInputRequest(
            session_id=session_id, input_id=input_id, answer=answer, approved=approved, request_id=request_id
        )
        return (await unary(self._inputs.GiveInput(request, **self._call()))).input

    async def inject(self, session_id: str, content: str, *, request_id: str = "") -> str:
        """Says something to the agents, who read it from their next turn on. Returns the message's id."""
        request = input_service_pb2.InjectMessageRequest(session_id=session_id, content=content, request_id=request_id)
        return (await unary(self._inputs.InjectMessage(request, **self._call()))).message_id

    async def turn_records(self, session_id: str, *, agent: str = "") -> AsyncIterator[dict[str, Any]]:
        """Finished turns as records of docs/schemas/turn.schema.json, oldest first, page by page."""
        token = ""
        while True:
            request = turn_service_pb2.ListTurnRecordsRequest(session_id=session_id, page_token=token, agent=agent)
            page = await unary(self._turns.ListTurnRecords(request, **self._call()))
            for record in page.records:
                yield json_format.MessageToDict(record)
            if not (token := page.next_page_token):
                return
