"""The orchestrator on memory stores with scripted peers: whole sessions run in milliseconds, and break where told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from google.protobuf import struct_pb2

from agentnet.common.v1 import usage_pb2
from agentnet.inference.v1 import generation_pb2, message_pb2
from agentnet.orchestrator.v1 import event_pb2, session_pb2, task_graph_pb2, turn_pb2
from agentnet.tools.v1 import tool_pb2
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
from services.orchestrator.inputs import Inputs
from services.orchestrator.leases_memory import MemoryLeaseStore
from services.orchestrator.peers import ToolAnswer, ToolShown, TurnMemory, Utterance
from services.orchestrator.planner import Planner
from services.orchestrator.preparing import Limits
from services.orchestrator.prompts import Known
from services.orchestrator.sessions import Sessions
from services.orchestrator.speech import Call
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
from shared.errors import Aborted, MeshError, NotFound, Reason
from shared.identity import Principal
from shared.ids import SequentialIds
from tests.support.mortal import Killed

TENANT = "acme"
ADA = Principal(TENANT, "ada", frozenset({"tenant_user"}))
TTL = timedelta(seconds=3)
POLL = timedelta(milliseconds=5)

Generated = generation_pb2.GenerationEvent
Reply = Callable[[Utterance], str | list[message_pb2.ToolCall]]


@dataclass(slots=True)
class _Generation:
    events: list[Generated]


@dataclass(slots=True)
class ScriptedInference:
    """Owns generations as the real service does: started once an id, readable by any number from anywhere.

    A reply is streamed word by word. `refusals` meet the next calls to start. `held_at` stops every stream before that
    sequence until `release`. `interludes` come after each
    reply's first word, `epilogue` before its end. `breaks` cuts the connection once, before a sequence; without an
    error it just ends. `forgotten` loses everything.
    """

    reply: Reply = lambda utterance: f"{utterance.agent.name} has one idea about it."
    refusals: list[MeshError] = field(default_factory=list)
    failures: list[MeshError | None] = field(default_factory=list)
    breaks: dict[int, MeshError | None] = field(default_factory=dict)
    interludes: list[Generated] = field(default_factory=list)
    held_at: int | None = None
    started: list[Utterance] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    embed_refusals: list[MeshError] = field(default_factory=list)
    embedded: list[list[str]] = field(default_factory=list)
    meaning: Callable[[str], Sequence[float]] = lambda text: (1.0, 0.0)
    window: int = 0
    monitors: list[generation_pb2.MonitorTiming] = field(default_factory=list)
    epilogue: list[Generated] = field(default_factory=list)
    _generations: dict[str, _Generation] = field(default_factory=dict)
    _released: asyncio.Event = field(default_factory=asyncio.Event)

    async def generate(self, caller: Principal, utterance: Utterance) -> AsyncGenerator[Generated, None]:
        if utterance.generation_id not in self._generations:
            if self.refusals:
                raise self.refusals.pop(0)
            self.started.append(utterance)
            failure = self.failures.pop(0) if self.failures else None
            self._generations[utterance.generation_id] = _Generation(
                _events(self.reply(utterance), failure, self.interludes, self.monitors, self.epilogue)
            )
        async with aclosing(self._read(utterance.generation_id, 0)) as events:
            async for event in events:
                yield event

    async def attach(self, caller: Principal, generation_id: str, *, after: int) -> AsyncGenerator[Generated, None]:
        if generation_id not in self._generations:
            raise NotFound("no such generation", reason=Reason.ERROR_REASON_GENERATION_NOT_FOUND)
        async with aclosing(self._read(generation_id, after)) as events:
            async for event in events:
                yield event

    async def cancel(self, caller: Principal, generation_id: str) -> None:
        self.cancelled.append(generation_id)

    async def embed(self, caller: Principal, texts: Sequence[str]) -> list[Sequence[float]]:
        if self.embed_refusals:
            raise self.embed_refusals.pop(0)
        self.embedded.append(list(texts))
        return [self.meaning(text) for text in texts]

    async def context_tokens(self, caller: Principal, model: str) -> int:
        return self.window

    def release(self) -> None:
        self.held_at = None
        self._released.set()

    def forget(self) -> None:
        """The replica that held the generations died, and its events with it."""
        self._generations.clear()
        self.release()

    async def _read(self, generation_id: str, after: int) -> AsyncGenerator[Generated, None]:
        for event in self._generations[generation_id].events[after:]:
            if event.sequence in self.breaks:
                if error := self.breaks.pop(event.sequence):
                    raise error
                return
            if self.held_at is not None and event.sequence >= self.held_at:
                await self._released.wait()
            if generation_id not in self._generations:
                raise Aborted("its owner died", reason=Reason.ERROR_REASON_GENERATION_LOST)
            yield event
            await asyncio.sleep(0)


def _events(
    said: str | list[message_pb2.ToolCall],
    failure: MeshError | None,
    interludes: Sequence[Generated],
    monitors: Sequence[generation_pb2.MonitorTiming] = (),
    epilogue: Sequence[Generated] = (),
) -> list[Generated]:
    asked = [] if isinstance(said, str) else said
    words = said.split(" ") if isinstance(said, str) else ["Looking", "it", "up."]
    parts = [word if place == 0 else f" {word}" for place, word in enumerate(words)]
    events = [Generated(started=generation_pb2.GenerationStarted(provider="scripted", model="scripted"))]
    events += [Generated(text=generation_pb2.TextProduced(text=part, token_count=1)) for part in parts]
    events += [
        Generated(tool_call=generation_pb2.ToolCallProduced(index=place, tool_call=call))
        for place, call in enumerate(asked)
    ]
    events += [Generated.FromString(event.SerializeToString()) for event in epilogue]
    events[2:2] = [Generated.FromString(event.SerializeToString()) for event in interludes]
    if failure:
        events.append(Generated(failed=generation_pb2.GenerationFailed(failure=failure.failure())))
    else:
        usage = usage_pb2.Usage(input_tokens=10, output_tokens=len(parts))
        cost = usage_pb2.Cost(micros_usd=7, provider="scripted", model="scripted")
        finished = generation_pb2.GenerationFinished(usage=usage, cost=cost, monitors=monitors)
        events.append(Generated(finished=finished))
    for place, event in enumerate(events, start=1):
        event.sequence = place
    return events


@dataclass(slots=True)
class ScriptedTools:
    """Has each effect once, as the real service does. `refusals` meet calls of a tool; `done` are effects in order.

    `crashes` kills the caller after the effect and before the answer, once for a tool. `held` holds every answer back.
    """

    names: tuple[str, ...] = ("search", "book")
    reply: Callable[[Call], str] = lambda call: f"{call.tool} found it."
    refusals: dict[str, list[MeshError]] = field(default_factory=dict)
    crashes: set[str] = field(default_factory=set)
    done: list[str] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    held: asyncio.Event | None = None
    schemas: dict[str, struct_pb2.Struct] = field(default_factory=dict)
    shows: dict[str, Sequence[ToolShown]] = field(default_factory=dict)
    leaves: dict[str, Sequence[turn_pb2.LeftArtefact]] = field(default_factory=dict)
    _effects: dict[str, str] = field(default_factory=dict)

    async def describe(self, caller: Principal, names: Sequence[str]) -> tuple[message_pb2.ToolDefinition, ...]:
        known = [name.partition("@")[0] for name in names]
        return tuple(message_pb2.ToolDefinition(name=name) for name in known if name in self.names)

    async def find(self, caller: Principal, reference: str) -> tool_pb2.Tool:
        name, _, version = reference.partition("@")
        if name not in self.names:
            raise NotFound(f"no tool {reference}", reason=Reason.ERROR_REASON_TOOL_NOT_FOUND)
        return tool_pb2.Tool(name=name, version=version or "1.0.0", input_schema=self.schemas.get(name))

    async def invoke(self, caller: Principal, call: Call, *, agent: str, session_id: str, turn_id: str) -> ToolAnswer:
        if self.refusals.get(call.tool):
            raise self.refusals[call.tool].pop(0)
        replayed = call.request_id in self._effects
        if not replayed:
            self.done.append(f"{call.tool} {call.arguments}")
            self._effects[call.request_id] = self.reply(call)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await (self.held.wait() if self.held else asyncio.sleep(0))
        self.at_once -= 1
        if call.tool in self.crashes:
            self.crashes.discard(call.tool)
            raise Killed
        left = tuple(self.leaves.get(call.tool, ()))
        return ToolAnswer(self._effects[call.request_id], f"inv_{len(self._effects)}", replayed, artefacts=left)

    async def stream(self, caller: Principal, call: Call, **given: Any) -> AsyncGenerator[ToolShown | ToolAnswer, None]:
        """`shows` come first; a tool that is not let end has no effect."""
        for shown in self.shows.get(call.tool, ()):
            yield shown
            await asyncio.sleep(0)
        yield await self.invoke(caller, call, **given)


@dataclass(slots=True)
class ScriptedMemory:
    """Knows what it is told, remembers what it is given; `away` is a memory service that does not answer."""

    known: tuple[Known, ...] = ()
    away: bool = False
    asked: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)

    async def recall(self, caller: Principal, *, session_id: str, agent: str, query: str) -> TurnMemory:
        self.asked.append(agent)
        return TurnMemory(degraded=True) if self.away else TurnMemory(self.known)

    async def append(self, caller: Principal, *, session_id: str, turn_id: str, agent: str, content: str) -> None:
        if not self.away:
            self.kept.append(turn_id)


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
    prompt_tokens: int = 6_000
    checkpoint_store: MemoryCheckpointStore = field(default_factory=MemoryCheckpointStore)
    naps: list[float] = field(default_factory=list)
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
        return Inputs(self.sessions, self.store, self.ids)

    def driver(self, *, store: SessionStore | None = None, tail: LogTail | None = None) -> SessionDriver:
        turns = Turns(
            agents=self.agents,
            inference=self.inference,
            memory=self.memory,
            tools=ToolWork(self.tools, Origins(self.store), self.clock, self._nap),
            clock=self.clock,
            ids=self.ids,
            limits=Limits(96, self.prompt_tokens),
            sleep=self._nap,
        )
        return SessionDriver(store or self.store, tail or self.tail, turns, self.clock, max_takeovers=5)

    @property
    def tasks(self) -> Tasks:
        return Tasks(self.agents, self.inference, self.clock, 96, self._nap)

    @property
    def tool_tasks(self) -> ToolTasks:
        return ToolTasks(self.tools, self.clock, self._nap)

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
