"""One try of a node: its prompt, its generation, its events; gone on with where it was, whoever ran it before.

The key of its effect follows from the log and goes into it with the event that begins the try (reserve), names the
generation (execute), and the event that ends the try closes it (finalise). A key without its end is an effect of
unknown outcome: inference, which does a key once, is asked for it again, and answers with what it did, or does it now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from agentnet.common.v1 import failure_pb2
from agentnet.inference.v1 import generation_pb2
from agentnet.orchestrator.v1 import agent_pb2, event_pb2, task_event_pb2, task_graph_pb2
from services.orchestrator.agents import Agents
from services.orchestrator.agents.lineage import sub_agent
from services.orchestrator.agents.routing import closest
from services.orchestrator.errors import TaskTimedOut
from services.orchestrator.forms import Form
from services.orchestrator.graphs import asking, outcome, planning
from services.orchestrator.graphs.schedule import Begin
from services.orchestrator.graphs.state import GraphState, Trying
from services.orchestrator.hearing import Events, Hearing, Speech
from services.orchestrator.holds import Leave
from services.orchestrator.peers import InferencePeer, Utterance
from services.orchestrator.record import GraphLog
from shared.clock import Clock
from shared.errors import MeshError
from shared.identity import Principal
from shared.log import log
from shared.telemetry import span

RETRY_AFTER: Final = "retry_after_seconds"
_FIRST_PAUSE: Final = timedelta(milliseconds=250)
_LONGEST_PAUSE: Final = timedelta(minutes=1)
_PLANNED_AT_MOST: Final = 20
_OFFERED_AT_MOST: Final = 100
_CALLED_OFF_SECONDS: Final = 2.0

Event = event_pb2.SessionEvent


@dataclass(frozen=True, slots=True)
class Tasks:
    """Runs the nodes of all graphs of this replica."""

    agents: Agents
    inference: InferencePeer
    leave: Leave
    clock: Clock
    max_output_tokens: int
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    # Versions never change, so what was found once is known.
    _known: dict[tuple[str, str], agent_pb2.Agent] = field(default_factory=dict)

    async def begin(self, record: GraphLog, step: Begin, caller: Principal) -> Event:
        """The event that reserves a try's effect: who is asked what, under which key."""
        state, node = record.state, record.state.nodes[step.node_id]
        asked = asking.question(state, node)
        if planning.plans(node):
            asked = planning.instructions(asked, await self.usable(caller, asked), max_nodes=_PLANNED_AT_MOST)
        broken = state.broken.get(node.id)
        leave = broken.answer.override_id if broken and broken.answer else ""
        key = asking.effect_key(
            state.graph.id, node.id, agent=step.agent, attempt=step.attempt, fallback=step.fallback, asked=asked,
            leave=leave,
        )  # fmt: skip
        if step.attempt == 1 and not step.fallback and not leave:
            key = state.keys.get(node.id, key)
        began = task_event_pb2.TaskStarted(
            node_id=node.id, agent=step.agent, attempt=step.attempt, fallback=step.fallback, turn_id=key, prompt=asked
        )
        return Event(task_started=began, actor=f"agent:{step.agent}")

    async def run(
        self, record: GraphLog, node_id: str, caller: Principal, *, pause: timedelta = timedelta()
    ) -> outcome.Ended:
        """Executes or goes on with the try that is in the log: how its generation ended. Raises why it was never heard
        to its end, and LeaseLost.
        """
        trying = record.state.trying[node_id]
        limit = record.state.nodes[node_id].timeout.ToTimedelta()
        labels = {"session_id": record.lease.session_id, "node": node_id, "agent": trying.agent}
        if pause:
            await self.sleep(pause.total_seconds())
        with span("graph.task", **labels):
            try:
                async with asyncio.timeout(time_left(trying, limit, pause, self.clock).total_seconds()):
                    await record.look()
                    events = await self._events(record, node_id, trying, caller)
                    speech = _speech(record, node_id, trying)
                    last = await self._hearing.hear(caller, speech, events, gathered=caller.grant is None)
            except TimeoutError:
                late = TaskTimedOut(f"the try took longer than {limit}", node_id=node_id, timeout=str(limit))
                return await self._timed_out(caller, _speech(record, node_id, trying), late)
        return _end(last)

    async def _timed_out(self, caller: Principal, speech: Speech, late: TaskTimedOut) -> outcome.Ended:
        """Calls the try off; how it ended is that it was late, with what it has cost until then."""
        ended = generation_pb2.GenerationFailed(failure=late.failure())
        if await self.cancel(speech.generation_id, caller):
            with suppress(TimeoutError, MeshError):
                async with asyncio.timeout(_CALLED_OFF_SECONDS):
                    events = self.inference.attach(caller, speech.generation_id, after=speech.heard)
                    spent = _end(await self._hearing.hear(caller, speech, events))
                    ended.usage.CopyFrom(spent.usage)
                    ended.cost.CopyFrom(spent.cost)
        return ended

    async def cancel(self, turn_id: str, caller: Principal) -> bool:
        """Calls off what is being generated; False when inference could not be told."""
        try:
            await self.inference.cancel(caller, turn_id)
        except MeshError as error:
            log.warning("task.not_cancelled", turn_id=turn_id, reason=error.reason_name)
            return False
        return True

    async def planners_agents(self, node: task_graph_pb2.TaskNode, caller: Principal) -> dict[str, str]:
        """Whom the answer of a node may name, each with its version: for a plan all that are usable, else nobody."""
        usable = await self.agents.active(caller.tenant_id) if planning.plans(node) else []
        return {agent.name: f"{agent.name}@{agent.version}" for agent in usable}

    async def usable(self, caller: Principal, asked: str) -> list[agent_pb2.Agent]:
        """The agents a planner is told of: of all active ones those that fit what is asked best."""
        return closest(await self.agents.active(caller.tenant_id), asked, limit=_OFFERED_AT_MOST)

    @property
    def _hearing(self) -> Hearing:
        return Hearing(self.inference, self.sleep)

    async def _events(self, record: GraphLog, node_id: str, trying: Trying, caller: Principal) -> Events:
        if trying.heard:
            return self.inference.attach(caller, trying.turn_id, after=trying.heard)
        agent = await self.agent(caller.tenant_id, trying.agent)
        utterance = Utterance(
            generation_id=trying.turn_id,
            session_id=record.lease.session_id,
            agent=agent,
            model=agent.model,
            lines=asking.lines(
                record.state.nodes[node_id],
                goal=record.state.graph.goal,
                system_prompt=agent.system_prompt,
                asked=trying.prompt,
            ),
            max_output_tokens=agent.sampling.max_output_tokens or self.max_output_tokens,
            form=await self._form(record.state, node_id, caller),
            team=record.state.session.team,
            sub_agent=sub_agent(record.state.session, record.state.nodes, node_id, trying.agent),
            gather=record.quiet,
            override_token=await self.leave.token(caller, trying.override_id),
        )
        return self.inference.generate(caller, utterance)

    async def _form(self, state: GraphState, node_id: str, caller: Principal) -> Form | None:
        node = state.nodes[node_id]
        if not planning.plans(node):
            return None
        usable = await self.usable(caller, asking.question(state, node))
        return planning.form([agent.name for agent in usable], max_nodes=_PLANNED_AT_MOST) if usable else None

    async def agent(self, tenant: str, reference: str) -> agent_pb2.Agent:
        """A pinned version. Raises AgentNotFound."""
        if (known := self._known.get((tenant, reference))) is not None:
            return known
        name, _, version = reference.partition("@")
        found = await self.agents.find(tenant, name, version)
        self._known[tenant, reference] = found
        return found


def _end(last: generation_pb2.GenerationEvent) -> outcome.Ended:
    return last.failed if last.HasField("failed") else last.finished


def pause_before(step: Begin) -> timedelta:
    """How long a try waits after the one before: as long as was asked for, or twice as long each time."""
    if step.after is None:
        return timedelta()
    asked = float(step.after.metadata.get(RETRY_AFTER, 0))
    return min(timedelta(seconds=asked) or _FIRST_PAUSE * 2**step.attempt, _LONGEST_PAUSE)


def failure_of(error: MeshError) -> failure_pb2.Failure:
    """A failure that also knows when to come back."""
    failure = error.failure()
    if error.retry_after is not None:
        failure.metadata[RETRY_AFTER] = str(error.retry_after.total_seconds())
    return failure


def time_left(trying: Trying, limit: timedelta, pause: timedelta, clock: Clock) -> timedelta:
    """Of a try's time, what is left when it is gone on with."""
    return max(limit + pause - (clock.now() - trying.started_at), timedelta(milliseconds=1))


def _speech(record: GraphLog, node_id: str, trying: Trying) -> Speech:
    """A try's place in its graph's log."""
    return Speech(
        record,
        trying.turn_id,
        trying.turn_id,
        f"agent:{trying.agent}",
        lambda: record.state.trying.get(node_id, trying).heard,
    )
