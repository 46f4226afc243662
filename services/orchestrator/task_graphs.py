"""Task graphs as callers know them: plan, execute, read, cancel, draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf import struct_pb2

from agentnet.orchestrator.v1 import checkpoint_pb2, event_pb2, session_pb2, task_graph_pb2
from agentnet.tools.v1 import tool_pb2
from services.orchestrator.agents import Agents
from services.orchestrator.checkpoints import form
from services.orchestrator.checkpoints.form import Resumption
from services.orchestrator.checkpoints.keeper import Checkpoints
from services.orchestrator.checkpoints.store import Data
from services.orchestrator.errors import SessionEnded, TaskGraphNotFound
from services.orchestrator.graphs import arguments, outcome, validate
from services.orchestrator.graphs.picture import Drawn
from services.orchestrator.graphs.state import GraphState, fold
from services.orchestrator.narrowing import carry
from services.orchestrator.peers import ToolIndex
from services.orchestrator.sessions import ENDED
from services.orchestrator.store import Entry, KeptGraph, LogTail, SessionStore, Signal
from shared.clock import Clock
from shared.errors import FieldRequired, InvalidArgument, PermissionDenied, Reason
from shared.identity import Principal
from shared.ids import Ids
from shared.paging import Page

MODE: Final = "task_graph"
_PAGE: Final = 1000
_STATUSES: Final = {
    session_pb2.SESSION_STATUS_PENDING: task_graph_pb2.TASK_STATUS_PENDING,
    session_pb2.SESSION_STATUS_RUNNING: task_graph_pb2.TASK_STATUS_RUNNING,
    session_pb2.SESSION_STATUS_WAITING: task_graph_pb2.TASK_STATUS_RUNNING,
    session_pb2.SESSION_STATUS_PAUSED: task_graph_pb2.TASK_STATUS_RUNNING,
    session_pb2.SESSION_STATUS_COMPLETED: task_graph_pb2.TASK_STATUS_COMPLETED,
    session_pb2.SESSION_STATUS_FAILED: task_graph_pb2.TASK_STATUS_FAILED,
    session_pb2.SESSION_STATUS_CANCELLED: task_graph_pb2.TASK_STATUS_CANCELLED,
}

Event = event_pb2.SessionEvent
Effects = Mapping[str, task_graph_pb2.ToolEffect]


@dataclass(frozen=True, slots=True)
class Shown:
    """A graph with what it has come to."""

    graph: task_graph_pb2.TaskGraph
    results: Sequence[task_graph_pb2.TaskResult]
    progress: task_graph_pb2.GraphProgress
    session_id: str
    last_checkpoint_id: str


@dataclass(frozen=True, slots=True)
class TaskGraphs:
    """The graphs of all tenants, one tenant a call."""

    store: SessionStore
    tail: LogTail
    agents: Agents
    tools: ToolIndex
    checkpoints: Checkpoints
    clock: Clock
    ids: Ids

    async def execute(
        self,
        starter: Principal,
        wanted: task_graph_pb2.TaskGraph | None,
        *,
        request_id: str | None,
        resume_from: str = "",
        metadata: struct_pb2.Struct | None = None,
        team: str = "",
    ) -> KeptGraph:
        """Accepts a graph: it is checked, its agents and tools are resolved and pinned. With `resume_from` it goes on
        from that checkpoint, in the checkpoint's own graph when none is wanted.

        Raises GraphInvalid, AgentNotFound, AgentArchived, CheckpointNotFound, CheckpointIncompatible and, of tools,
        NotFound.
        """
        begun = await self._begun(starter.tenant_id, wanted, resume_from)
        graph = begun.graph
        validate.check(graph.nodes)
        await self._pin(starter.tenant_id, graph)
        await self._pin_tools(starter, graph, begun.effects)
        graph.id = self.ids.new("tgr")
        graph.status = task_graph_pb2.TASK_STATUS_PENDING
        graph.create_time.FromDatetime(self.clock.now())
        session = self._session(graph)
        session.team = team
        if metadata is not None:
            session.metadata.CopyFrom(metadata)
        carry(starter, session)
        started = event_pb2.SessionStarted(
            session=session,
            task_graph=graph,
            task_results=begun.results,
            task_keys=begun.keys,
            task_effects=begun.effects,
        )
        event = Event(session_id=session.id, sequence=1, actor=f"user:{starter.subject}", session_started=started)
        event.time.CopyFrom(session.start_time)
        first = Entry(1, "session_started", event.SerializeToString())
        kept = await self.store.start(starter.tenant_id, session, starter, first, request_id=request_id, graph=graph)
        if kept.id != session.id:
            graph = await self.store.graph_of(starter.tenant_id, kept.id) or graph
        return KeptGraph(graph, kept)

    async def find(self, tenant: str, graph_id: str) -> KeptGraph:
        """Raises TaskGraphNotFound."""
        kept = await self.store.find_graph(tenant, graph_id)
        if kept is None:
            raise TaskGraphNotFound(f"no task graph {graph_id}", task_graph_id=graph_id)
        return with_status(kept)

    async def every(
        self, tenant: str, *, status: task_graph_pb2.TaskStatus.ValueType, page: Page
    ) -> Sequence[KeptGraph]:
        """Graphs, newest first."""
        statuses = [mine for mine, theirs in _STATUSES.items() if theirs == status]
        return [with_status(kept) for kept in await self.store.every_graph(tenant, statuses=statuses, page=page)]

    async def shown(self, tenant: str, graph_id: str) -> Shown:
        """The graph with its results so far, those of running nodes included. Raises TaskGraphNotFound."""
        kept = await self.find(tenant, graph_id)
        state = await self.state(tenant, kept.session.id)
        graph = task_graph_pb2.TaskGraph()
        graph.CopyFrom(kept.graph)
        del graph.nodes[:]
        graph.nodes.extend(_now(state, node) for node in state.nodes.values())
        return Shown(graph, self._results(state), state.progress, kept.session.id, state.checkpoint_id)

    async def cancel(self, caller: Principal, graph_id: str, node_id: str, *, request_id: str | None) -> KeptGraph:
        """Ends the graph, or a node and all that depends on it. Raises TaskGraphNotFound, SessionEnded and, for a
        node it has not, InvalidArgument.
        """
        kept = await self.find(caller.tenant_id, graph_id)
        session_id = kept.session.id
        if request_id and await self.store.signalled(caller.tenant_id, session_id, request_id):
            return kept
        if kept.session.status in ENDED:
            status = session_pb2.SessionStatus.Name(kept.session.status).removeprefix("SESSION_STATUS_")
            raise SessionEnded("the graph has ended", session_id=session_id, status=status)
        if node_id and node_id not in (await self.state(caller.tenant_id, session_id)).nodes:
            raise InvalidArgument(f"the graph has no node {node_id}", field="node_id")
        kind = "cancel_task" if node_id else "cancel"
        signal = Signal(self.ids.new("sig"), kind, caller.subject, node_id)
        await self.store.signal(caller.tenant_id, session_id, signal, request_id=request_id)
        return kept

    async def drawn(self, tenant: str, graph_id: str) -> list[Drawn]:
        """The nodes as a picture shows them. Raises TaskGraphNotFound."""
        kept = await self.find(tenant, graph_id)
        state = await self.state(tenant, kept.session.id)
        return [Drawn(name, _agent(state, name), _state(state, name), state.depends_on[name]) for name in state.nodes]

    async def save(self, tenant: str, graph_id: str, *, notes: Data) -> checkpoint_pb2.Checkpoint:
        """Makes a checkpoint of a graph as it is now. Raises TaskGraphNotFound and Unavailable."""
        kept = await self.find(tenant, graph_id)
        state = await self.state(tenant, kept.session.id)
        return form.read(await self.checkpoints.save(tenant, state, notes=notes))

    async def state(self, tenant: str, session_id: str) -> GraphState:
        """The state as the log, committed and live, has it."""
        state = GraphState()
        while entries := await self.store.read(tenant, session_id, state.last_sequence, limit=_PAGE):
            state = fold(state, (Event.FromString(entry.payload) for entry in entries))
        live = await self.tail.read(tenant, session_id, state.last_sequence)
        return fold(state, (Event.FromString(entry.payload) for entry in live))

    async def _begun(self, tenant: str, wanted: task_graph_pb2.TaskGraph | None, resume_from: str) -> Resumption:
        if resume_from:
            return await self.checkpoints.resumption(tenant, resume_from, wanted)
        if wanted is None:
            raise FieldRequired("graph.nodes")
        return Resumption(wanted, (), {})

    def _results(self, state: GraphState) -> list[task_graph_pb2.TaskResult]:
        now = self.clock.now()
        trying = {**{name: broken.last for name, broken in state.broken.items()}, **state.trying}
        return [
            state.results[name] if name in state.results else outcome.running(name, trying[name], now)
            for name in state.started
        ]

    def _session(self, graph: task_graph_pb2.TaskGraph) -> session_pb2.Session:
        session = session_pb2.Session(
            id=self.ids.new("ses"),
            topic_start=graph.goal,
            topic_final=graph.goal,
            mode=MODE,
            strategy=MODE,
            agents=sorted({node.agent for node in graph.nodes if node.agent}),
            status=session_pb2.SESSION_STATUS_PENDING,
            last_sequence=1,
        )
        session.start_time.CopyFrom(graph.create_time)
        return session

    async def _pin(self, tenant: str, graph: task_graph_pb2.TaskGraph) -> None:
        named = {name for node in graph.nodes for name in (node.agent, node.fallback_agent) if name}
        pinned = {name: await self._pinned(tenant, name) for name in sorted(named)}
        for node in graph.nodes:
            node.agent = pinned.get(node.agent, "")
            node.fallback_agent = pinned.get(node.fallback_agent, "")

    async def _pin_tools(self, starter: Principal, graph: task_graph_pb2.TaskGraph, begun: Effects) -> None:
        """Tools at one version, which fit what they are given; a call that has begun keeps the version it had."""
        found: dict[str, tool_pb2.Tool] = {}
        for node in graph.nodes:
            if not node.tool:
                continue
            if node.id in begun:
                node.tool = begun[node.id].tool
            if node.tool not in found:
                found[node.tool] = await self.tools.find(starter, node.tool)
            tool = found[node.tool]
            arguments.check(node, tool)
            await self._allow(starter.tenant_id, node)
            node.tool = f"{tool.name}@{tool.version}"

    async def _allow(self, tenant: str, node: task_graph_pb2.TaskNode) -> None:
        """An agent calls what it was given and nothing else; whom no agent stands for, tools itself judges."""
        if not node.agent:
            return
        name, _, version = node.agent.partition("@")
        agent = await self.agents.find(tenant, name, version)
        if node.tool.partition("@")[0] not in {own.partition("@")[0] for own in (*agent.tools, *agent.functions)}:
            told = f"{node.id}: {agent.name} has no tool {node.tool}"
            raise PermissionDenied(told, reason=Reason.ERROR_REASON_TOOL_NOT_ALLOWED, agent=agent.name, tool=node.tool)

    async def _pinned(self, tenant: str, reference: str) -> str:
        name, _, version = reference.partition("@")
        agent = await self.agents.runnable(tenant, name, version)
        return f"{agent.name}@{agent.version}"


def with_status(kept: KeptGraph) -> KeptGraph:
    """The graph as its session stands."""
    graph = task_graph_pb2.TaskGraph()
    graph.CopyFrom(kept.graph)
    graph.status = _STATUSES[kept.session.status]
    return KeptGraph(graph, kept.session)


def _now(state: GraphState, node: task_graph_pb2.TaskNode) -> task_graph_pb2.TaskNode:
    """A node with what it depends on by now."""
    if tuple(node.depends_on) == state.depends_on[node.id]:
        return node
    copy = task_graph_pb2.TaskNode()
    copy.CopyFrom(node)
    del copy.depends_on[:]
    copy.depends_on.extend(state.depends_on[node.id])
    return copy


def _agent(state: GraphState, name: str) -> str:
    result: Mapping[str, task_graph_pb2.TaskResult] = state.results
    own = state.nodes[name]
    return own.tool or (result[name].agent if name in result else "") or own.agent


def _state(state: GraphState, name: str) -> str:
    if name in state.results:
        return task_graph_pb2.TaskStatus.Name(state.results[name].status).removeprefix("TASK_STATUS_").lower()
    return "running" if name in state.trying or name in state.broken else "pending"
