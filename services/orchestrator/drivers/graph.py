"""Driving one task graph: fold, decide, write once, start all that is ready, wait for what ends first.

A try whose key follows from the log begins while its reservation is being written: whoever drives next comes to the
same key and is answered with what that try did. What the log alone does not lead to begins when it is written: the
call of a tool, another attempt, what a planner or a signal wanted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from agentnet.inference.v1 import generation_pb2
from agentnet.orchestrator.v1 import event_pb2, session_pb2
from services.orchestrator.checkpoints import keeper
from services.orchestrator.checkpoints.keeper import Checkpoints
from services.orchestrator.checkpoints.saving import Saving
from services.orchestrator.drivers.runs import begin, drive_on, signals_received
from services.orchestrator.errors import LeaseLost
from services.orchestrator.graphs import outcome, planning
from services.orchestrator.graphs.schedule import Ask, Await, Begin, Done, Finish, Grow, Settle, Step, Wait, next_step
from services.orchestrator.peers import ToolAnswer
from services.orchestrator.record import GraphLog
from services.orchestrator.store import Lease, LogTail, SessionStore
from services.orchestrator.tasks import Tasks, failure_of, pause_before
from services.orchestrator.tool_tasks import ToolTasks
from shared.clock import Clock
from shared.errors import MeshError, from_failure
from shared.identity import Principal
from shared.log import log
from shared.telemetry import meter

_SIGNAL_POLL_SECONDS: Final = 1.0
# How long ends that let nothing begin wait for others.
_TOGETHER_SECONDS: Final = 0.01
# How many decisions may wait for the one being written before nothing more begins.
_AHEAD: Final = 4
# A generation that was called off is settled and ends at once; nobody waits longer for what it has cost.
_CALLED_OFF_SECONDS: Final = 2.0
_nodes = meter.create_counter("graph_nodes", description="nodes of task graphs that ended, by status")
_durations = meter.create_histogram(
    "dag_node_duration_ms",
    unit="ms",
    description="of nodes that ended, tries and pauses included, by agent and node_type",
)

Event = event_pb2.SessionEvent
Work = asyncio.Task[outcome.Ended | ToolAnswer]


@dataclass(slots=True)
class GraphDriver:
    """Drives graphs of this replica, one call a graph."""

    store: SessionStore
    tail: LogTail
    tasks: Tasks
    tool_tasks: ToolTasks
    checkpoints: Checkpoints
    clock: Clock
    max_takeovers: int

    async def drive(self, lease: Lease, signalled: asyncio.Event) -> None:
        """Runs the graph as far as it goes. Raises LeaseLost; being cancelled leaves it to the next owner."""
        drive = await self.open(lease, signalled)
        # Whoever is narrowed is admitted by what the log says it has spent.
        drive.ahead = _AHEAD if drive.caller.grant is None else 0
        await drive_on(drive)

    async def open(self, lease: Lease, signalled: asyncio.Event) -> _Drive:
        """A graph ready to be driven step by step, with what others began gone on with: every step is in the log when
        it has been taken. Raises LeaseLost.
        """
        record = GraphLog(lease, self.store, self.tail, self.clock)
        looking = asyncio.create_task(record.look())
        caller = await begin(record)
        await looking
        saving = Saving(self.checkpoints, record, keeper.mark(record.state))
        drive = _Drive(self, record, caller, signalled, saving, asked=lease.begun is None)
        drive.enter()
        return drive


@dataclass(slots=True)
class _Drive:
    """One graph being driven: the only one who decides, beside the tries at work."""

    driver: GraphDriver
    record: GraphLog
    caller: Principal
    signalled: asyncio.Event
    saving: Saving
    working: dict[str, Work] = field(default_factory=dict)
    turns: dict[str, str] = field(default_factory=dict)
    ended: list[tuple[str, Work]] = field(default_factory=list)
    spent: dict[str, outcome.Ended] = field(default_factory=dict)
    asked: bool = True
    ahead: int = 0
    # Whether there is something in what is to be written to which the log before it does not lead.
    _firm: bool = False
    _unwritten: int = 0
    _writing: asyncio.Task[None] | None = None
    _woken: asyncio.Event = field(default_factory=asyncio.Event)
    _listening: asyncio.Task[None] | None = None

    def enter(self) -> None:
        self._listening = asyncio.create_task(self._listen())
        for name in self.record.state.trying:
            self._start(name, None)

    @property
    def finished(self) -> bool:
        return self.record.state.finished

    async def go(self) -> bool:
        """Puts what ended in the log and takes every step that can be taken at once; True when it rests."""
        await self._written(wait=False)
        await self._look()
        await self._hang_up()
        self.saving.look()
        begun, step = await self._decide()
        beside = isinstance(step, Await) and not self._firm and self._unwritten < self.ahead
        await self._written(wait=not beside)
        match step:
            case Finish():
                await self._call_off()
                await self._finish(step)
                return True
            case Wait():
                waiting = event_pb2.SessionWaiting(status=step.status)
                await self.record.commit([Event(session_waiting=waiting)], release=True)
                return True
            case Done():
                return True
        if beside:
            self._write()
        else:
            await self.record.commit()
            self._firm = False
        await self._call_off()
        for started in begun:
            self._start(started.node_id, started)
        return False

    def _write(self) -> None:
        """Commits what is decided while the work begins."""
        self._unwritten += 1
        if self._writing is None:
            self._writing = asyncio.create_task(self._commit(), name="commit")

    async def _commit(self) -> None:
        """What comes while something is being written is written together after it."""
        while self._unwritten:
            self._unwritten = 0
            await self.record.commit()

    async def _written(self, *, wait: bool) -> None:
        """Raises why what was decided could not be written."""
        if self._writing is not None and (wait or self._writing.done()):
            await self._writing
            self._writing = None

    async def stop(self) -> None:
        """Leaves what is generated to whoever drives next."""
        beside = filter(None, [self._listening, self._writing])
        at_work: list[asyncio.Task[Any]] = [*self.working.values(), *beside]
        for work in at_work:
            work.cancel()
        await self.saving.stop()
        await asyncio.gather(*at_work, return_exceptions=True)

    async def _listen(self) -> None:
        while True:
            await self.signalled.wait()
            self.signalled.clear()
            self.asked = True
            self._woken.set()

    async def _decide(self) -> tuple[list[Begin], Step]:
        """Every step that can be taken at once, in the log but not written yet; then the one that cannot. Tries that
        need not wait for the log begin one after another; those that must are told.
        """
        begun: list[Begin] = []
        while True:
            step = next_step(self.record.state, max_takeovers=self.driver.max_takeovers)
            match step:
                case Begin():
                    self.record.stage([await self._begun(step)])
                    if self._firm or self._unwritten >= self.ahead:
                        begun.append(step)
                    else:
                        self._start(step.node_id, step)
                        await asyncio.sleep(0)  # its model is asked while the next one is decided
                case Settle():
                    now, spent = self.driver.clock.now(), self.spent.pop(step.node_id, None)
                    self._ended(outcome.settled(self.record.state, step, now=now, spent=spent))
                case Ask(name):
                    held = self.record.state.broken[name]
                    self.record.stage([await self.driver.tool_tasks.held(self.record, held, self.caller)])
                    self._firm = True
                case Grow():
                    self.record.stage([Event(graph_grown=step.grown)])
                case _:
                    return begun, step

    async def _begun(self, step: Begin) -> Event:
        """The event that reserves a try's effect."""
        planned = planning.plans(self.record.state.nodes[step.node_id])
        self._firm = self._firm or planned or step.effect is not None
        if step.effect is not None:
            return self.driver.tool_tasks.begin(self.record, step, step.effect)
        return await self.driver.tasks.begin(self.record, step, self.caller)

    def _start(self, name: str, step: Begin | None) -> None:
        trying = self.record.state.trying[name]
        if step is None:
            log.info("task.gone_on_with", node=name, turn_id=trying.turn_id, after=trying.heard)
        pause = pause_before(step) if step else timedelta()
        work: Coroutine[Any, Any, outcome.Ended | ToolAnswer]
        if trying.effect is not None:
            work = self.driver.tool_tasks.run(self.record, name, self.caller, pause=pause, again=step is None)
        else:
            work = self.driver.tasks.run(self.record, name, self.caller, pause=pause)
            self.turns[name] = trying.turn_id
        task: Work = asyncio.create_task(work, name=f"task {name}")
        self.working[name] = task
        task.add_done_callback(lambda done: self._over(name, done))

    def _over(self, name: str, work: Work) -> None:
        self.ended.append((name, work))
        self._woken.set()

    async def wait(self) -> None:
        """Waits for a try to end or a signal; ends that let nothing begin wait a moment for others, to be written with
        them. They are folded as they come: when the last one does only that one is left to do.
        """
        await self._nap(_SIGNAL_POLL_SECONDS)
        self.asked = self.asked or not self.ended
        now = asyncio.get_running_loop().time
        until = now() + _TOGETHER_SECONDS
        await self._take_in()
        while self.working and not self._opens and (left := until - now()) > 0:
            await self._nap(left)
            await self._take_in()

    async def _nap(self, seconds: float) -> None:
        """Until something happens, or the time is over."""
        timer = asyncio.get_running_loop().call_later(seconds, self._woken.set)
        try:
            await self._woken.wait()
        finally:
            timer.cancel()
        self._woken.clear()

    @property
    def _opens(self) -> bool:
        """Whether there is something to decide."""
        state = self.record.state
        return bool(self.asked or state.ready or state.broken)

    async def _look(self) -> None:
        if self.asked:
            self.asked = False
            received = await signals_received(self.record)
            self.record.stage(received)
            self._firm = self._firm or bool(received)
        await self._take_in()

    async def _take_in(self) -> None:
        """Puts what ended in the log; it is written with what is committed next."""
        ended, self.ended = self.ended, []
        for name, work in ended:
            if self.working.get(name) is work:
                del self.working[name]
                await self._outcome(name, work)

    async def _outcome(self, name: str, work: Work) -> None:
        try:
            finished = work.result()
        except LeaseLost:
            raise
        except MeshError as error:
            self._broke_off(name, error)
            return
        if isinstance(finished, generation_pb2.GenerationFailed):
            self._broke_off(name, from_failure(finished.failure), spent=finished)
            return
        if isinstance(finished, ToolAnswer):
            self._ended(self.driver.tool_tasks.answered(self.record, name, finished))
            return
        node = self.record.state.nodes[name]
        self._firm = self._firm or planning.plans(node)
        agents = await self.driver.tasks.planners_agents(node, self.caller)
        now = self.driver.clock.now()
        for event in outcome.answered(self.record.state, name, finished, agents=agents, now=now):
            self._ended(event)

    def _broke_off(self, name: str, error: MeshError, *, spent: outcome.Ended | None = None) -> None:
        trying = self.record.state.trying[name]
        log.warning("task.interrupted", node=name, turn_id=trying.turn_id, reason=error.reason_name)
        self.record.stage([outcome.broke_off(name, trying, failure_of(error), spent=spent)])
        self._firm = True

    def _ended(self, event: Event) -> None:
        """Puts an event in the log; one that ends a node knows how far the graph is with it."""
        self.record.stage([outcome.with_progress(self.record.state, event)])
        if event.HasField("task_finished"):
            result = event.task_finished.result
            _nodes.add(1, {"status": str(result.status)})
            node = self.record.state.nodes[result.node_id]
            labels = {"agent": result.agent, "node_type": planning.kind_of(node)}
            _durations.record(result.elapsed.ToMilliseconds(), labels)

    async def _hang_up(self) -> None:
        """Calls off what is generated for nodes about to be cancelled, and hears what it has cost."""
        state = self.record.state
        dying = [name for name in self.working if state.cancelled or name in state.doomed]
        off = {name: self.working[name] for name in dying if name in self.turns}
        if not off:
            return
        told = await asyncio.gather(*(self.driver.tasks.cancel(self.turns[name], self.caller) for name in off))
        if any(told):
            await asyncio.wait(off.values(), timeout=_CALLED_OFF_SECONDS)
        for name, work in off.items():
            if (spent := _heard(work)) is not None:
                self.spent[name] = spent
                del self.turns[name]

    async def _call_off(self) -> None:
        """Ends the work of nodes that ended without it."""
        for name in [name for name in self.working if name not in self.record.state.trying]:
            work = self.working.pop(name)
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            if generation := self.turns.pop(name, ""):
                await self.driver.tasks.cancel(generation, self.caller)

    async def _finish(self, step: Finish) -> None:
        await self.saving.last(always=step.status != session_pb2.SESSION_STATUS_COMPLETED)
        session = self.record.summary()
        session.status = step.status
        session.stop_reason = step.reason
        session.topic_final = session.topic_final or session.topic_start
        session.end_time.FromDatetime(self.driver.clock.now())
        if step.failure is not None:
            session.failure.CopyFrom(step.failure)
            if self.record.state.checkpoint_id:
                session.failure.metadata["last_checkpoint_id"] = self.record.state.checkpoint_id
        await self.record.commit([Event(session_finished=event_pb2.SessionFinished(session=session))], release=True)
        reason = session_pb2.StopReason.Name(step.reason)
        log.info("graph.finished", reason=reason, nodes=len(self.record.state.nodes))


def _heard(work: Work) -> outcome.Ended | None:
    """How a generation ended, if it was heard to its end."""
    if not work.done() or work.cancelled() or work.exception():
        return None
    found = work.result()
    return None if isinstance(found, ToolAnswer) else found
