"""The orchestrator on memory stores with scripted peers: whole sessions run in milliseconds, and break where told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from agentnet.orchestrator.v1 import event_pb2, session_pb2, task_graph_pb2
from services.orchestrator import agents as registry
from services.orchestrator.agents import Agents
from services.orchestrator.checkpoints.keeper import Checkpoints
from services.orchestrator.checkpoints.store_memory import MemoryCheckpointStore
from services.orchestrator.drivers.graph import GraphDriver
from services.orchestrator.drivers.runs import Runs
from services.orchestrator.drivers.session import SessionDriver
from services.orchestrator.forks.effects import Origins
from services.orchestrator.graphs import shapes
from services.orchestrator.histories import Histories
from services.orchestrator.holds import Holds
from services.orchestrator.inputs import Expiry, Inputs
from services.orchestrator.leases_memory import MemoryLeaseStore
from services.orchestrator.planner import Planner
from services.orchestrator.preparing import Limits
from services.orchestrator.sessions import Sessions
from services.orchestrator.store import KeptGraph, Lease, LogTail, SessionStore
from services.orchestrator.store_memory import MemoryAgentStore, MemorySessionStore
from services.orchestrator.tail_memory import MemoryTail
from services.orchestrator.task_graphs import TaskGraphs
from services.orchestrator.tasks import Tasks
from services.orchestrator.tool_tasks import ToolTasks
from services.orchestrator.toolwork import ToolWork
from services.orchestrator.turns import Turns
from services.orchestrator.watch import Watcher
from shared.clock import FakeClock
from shared.identity import Principal
from shared.ids import SequentialIds
from shared.risks import Tell, untold
from tests.support.scripted_leave import ScriptedLeave
from tests.support.scripted_peers import ScriptedInference, ScriptedMemory, ScriptedTools

TENANT = "acme"


ADA = Principal(TENANT, "ada", frozenset({"tenant_user"}))


TTL = timedelta(seconds=3)


POLL = timedelta(milliseconds=5)


@dataclass(slots=True)
class World:
    """Everything an orchestrator needs, and the levers on it."""

    clock: FakeClock = field(default_factory=FakeClock)
    ids: SequentialIds = field(default_factory=SequentialIds)
    agent_store: MemoryAgentStore = field(default_factory=MemoryAgentStore)
    tail: MemoryTail = field(default_factory=MemoryTail)
    inference: ScriptedInference = field(default_factory=ScriptedInference)
    memory: ScriptedMemory = field(default_factory=ScriptedMemory)
    tools: ScriptedTools = field(default_factory=ScriptedTools)
    leave: ScriptedLeave = field(default_factory=ScriptedLeave)
    prompt_tokens: int = 6_000
    checkpoint_store: MemoryCheckpointStore = field(default_factory=MemoryCheckpointStore)
    naps: list[float] = field(default_factory=list)
    tell: Tell = untold
    leases: MemoryLeaseStore = field(init=False)
    store: MemorySessionStore = field(init=False)

    def __post_init__(self) -> None:
        self.leases = MemoryLeaseStore(self.clock)
        self.store = MemorySessionStore(self.leases)

    @property
    def agents(self) -> Agents:
        defaults = registry.read_agents(Path(registry.__file__).parents[1] / "agents.yaml")
        return Agents(self.agent_store, defaults, clock=self.clock, ids=self.ids)

    @property
    def watcher(self) -> Watcher:
        return Watcher(self.store, self.tail, poll=POLL)

    @property
    def sessions(self) -> Sessions:
        return Sessions(self.store, self.agents, self.watcher, self.clock, self.ids, timedelta(seconds=10))

    @property
    def inputs(self) -> Inputs:
        return Inputs(self.sessions, self.store, self.ids, self.leave, self.clock)

    @property
    def expiry(self) -> Expiry:
        return Expiry(self.store, self.leases, self.clock, timedelta(seconds=10))

    def driver(self, *, store: SessionStore | None = None, tail: LogTail | None = None) -> SessionDriver:
        turns = Turns(
            agents=self.agents,
            inference=self.inference,
            memory=self.memory,
            tools=ToolWork(self.tools, Origins(self.store), self.clock, Holds(self.leave), self._nap),
            clock=self.clock,
            ids=self.ids,
            limits=Limits(96, self.prompt_tokens),
            sleep=self._nap,
        )
        return SessionDriver(
            store or self.store, tail or self.tail, turns, self.clock, max_takeovers=5,
            tell=lambda tenant, happened, about: self.tell(tenant, happened, about),
        )  # fmt: skip

    @property
    def tasks(self) -> Tasks:
        return Tasks(self.agents, self.inference, self.leave, self.clock, 96, self._nap)

    @property
    def tool_tasks(self) -> ToolTasks:
        return ToolTasks(self.tools, Holds(self.leave), self.clock, self._nap)

    @property
    def graphs(self) -> TaskGraphs:
        return TaskGraphs(self.store, self.tail, self.agents, self.tools, self.checkpoints, self.clock, self.ids)

    @property
    def checkpoints(self) -> Checkpoints:
        return Checkpoints(self.checkpoint_store, self.clock, self.ids)

    @property
    def histories(self) -> Histories:
        return Histories(self.store, self.agents, self.clock, self.ids, 5)

    @property
    def planner(self) -> Planner:
        return Planner(self.tasks, self.inference, self.ids, 1024)

    def graph_driver(self, *, store: SessionStore | None = None, tail: LogTail | None = None) -> GraphDriver:
        own, live = store or self.store, tail or self.tail
        return GraphDriver(own, live, self.tasks, self.tool_tasks, self.checkpoints, self.clock, max_takeovers=5)

    def runs(self) -> Runs:
        return Runs({"session": self.driver(), "graph": self.graph_driver()})

    async def execute(self, *nodes: task_graph_pb2.TaskNode, **parts: Any) -> KeptGraph:
        """An accepted graph."""
        given = task_graph_pb2.TaskGraph(goal="All of it", nodes=nodes, **parts)
        return await self.graphs.execute(ADA, shapes.graph(given), request_id=None)

    async def start(
        self,
        *,
        agents: Sequence[str] = ("Athena", "Apollo"),
        mode: str = "brainstorm",
        max_rounds: int = 2,
        threshold: float = 0,
        manual_advance: bool = False,
        strategy: str = "round_robin",
        topic: str = "Zero-loss failover",
        measures: Sequence[session_pb2.MeasureRule] = (),
        **parts: Any,
    ) -> str:
        """An accepted session's id. A threshold, or measures, switch convergence on."""
        policy = session_pb2.ConvergencePolicy(
            enabled=threshold > 0 or bool(measures), threshold=threshold, measures=measures
        )
        session = session_pb2.Session(
            topic_start=topic,
            mode=mode,
            strategy=strategy,
            agents=agents,
            max_rounds=max_rounds,
            convergence_policy=policy,
            manual_advance=manual_advance,
            **parts,
        )
        return (await self.sessions.start(ADA, session, request_id=None)).id

    async def claim(self, owner: str = "one") -> Lease:
        (lease,) = await self.leases.claim(owner, ttl=TTL, limit=1)
        return lease

    async def drive(self, owner: str = "one") -> None:
        """Claims the one session that is ready and runs it as far as it goes."""
        await self.runs().drive(await self.claim(owner), asyncio.Event())

    async def signal(self, session_id: str, kind: str) -> session_pb2.Session:
        return await self.sessions.signal(ADA, session_id, kind, request_id=None)

    async def log(self, session_id: str) -> list[event_pb2.SessionEvent]:
        """The committed log."""
        entries = await self.store.read(TENANT, session_id, 0, limit=100_000)
        return [event_pb2.SessionEvent.FromString(entry.payload) for entry in entries]

    async def kinds(self, session_id: str) -> list[str]:
        """The committed log's payloads by name, without tokens."""
        names = [event.WhichOneof("payload") or "" for event in await self.log(session_id)]
        return [name for name in names if name != "tokens_produced"]

    async def find(self, session_id: str) -> session_pb2.Session:
        return await self.sessions.find(TENANT, session_id)

    async def _nap(self, seconds: float) -> None:
        self.naps.append(seconds)
        await asyncio.sleep(0)


class Watching:
    """A reader of a log, from the start, in a task of its own."""

    def __init__(self, world: World, session_id: str, *, after: int = 0) -> None:
        self.seen: list[bytes] = []
        self._grown = asyncio.Event()
        self._task = asyncio.create_task(self._watch(world, session_id, after))

    async def until(self, count: int) -> None:
        """Waits until this many events were seen."""
        while len(self.seen) < count:
            self._grown.clear()
            await asyncio.wait_for(self._grown.wait(), 5)

    async def end(self) -> list[bytes]:
        """All of it, when the log has ended."""
        await asyncio.wait_for(self._task, 5)
        return self.seen

    def stop(self) -> None:
        self._task.cancel()

    async def _watch(self, world: World, session_id: str, after: int) -> None:
        entries = world.watcher.watch(TENANT, session_id, after=after, heartbeat=timedelta(seconds=10))
        async with aclosing(entries):
            async for entry in entries:
                if entry:
                    self.seen.append(entry.payload)
                    self._grown.set()


@asynccontextmanager
async def driving(world: World, owner: str) -> AsyncGenerator[asyncio.Task[None], None]:
    """A driver at work on the one ready session. Leaving the block kills it: nothing is given back."""
    lease = await world.claim(owner)
    task = asyncio.create_task(world.runs().drive(lease, asyncio.Event()))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
