"""The planner: an agent asked for a graph that reaches a goal; its answer is checked, and sent back for repair once."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from grpc import StatusCode

from agentnet.inference.v1 import generation_pb2
from agentnet.orchestrator.v1 import agent_pb2, task_graph_pb2
from services.orchestrator.errors import AgentNotFound, GraphInvalid, PlanInvalid
from services.orchestrator.forms import Form
from services.orchestrator.graphs import planning, shapes
from services.orchestrator.peers import InferencePeer, Utterance
from services.orchestrator.prompts import Line
from services.orchestrator.tasks import Tasks
from shared.errors import MeshError, Reason, from_failure
from shared.identity import Principal
from shared.ids import Ids
from shared.log import log

_CAPABILITY: Final = "planning"
# How often a generation is read on before its stream's breaking counts.
_STREAMS: Final = 5
# Inference held the answer to the form of a plan and did not get one: it is sent back with what is wrong, as any other.
_NO_PLAN: Final = Reason.ERROR_REASON_OUTPUT_INVALID
_PART: Final = "You plan work for others. You answer with JSON only."


@dataclass(frozen=True, slots=True)
class Planner:
    """Plans for all tenants, one goal a call."""

    tasks: Tasks
    inference: InferencePeer
    ids: Ids
    max_output_tokens: int

    async def plan(
        self, caller: Principal, goal: str, *, agents: Sequence[str], planner: str, max_nodes: int
    ) -> tuple[task_graph_pb2.TaskGraph, bool]:
        """A valid graph, not stored, and whether the first answer had to be repaired.

        Raises AgentNotFound, PlanInvalid and whatever inference refuses with.
        """
        usable = await self._usable(caller, goal, agents)
        speaker = await self._planner(caller.tenant_id, planner)
        names = [agent.name for agent in usable]
        asked = planning.instructions(goal, usable, max_nodes=max_nodes)
        form = planning.form(names, max_nodes=max_nodes)
        answer = await self._say(caller, speaker, asked, form)
        try:
            return _graph(goal, planning.read(answer, names, max_nodes=max_nodes)), False
        except GraphInvalid as fault:
            log.info("plan.repaired", agent=speaker.name, fault=fault.facts["fault"])
            answer = await self._say(caller, speaker, f"{asked}\n\n{planning.repair(answer, fault)}", form)
        try:
            return _graph(goal, planning.read(answer, names, max_nodes=max_nodes)), True
        except GraphInvalid as fault:
            raise PlanInvalid(
                f"{speaker.name} answered no valid plan twice: {fault.message}"[:1000],
                fault=fault.facts["fault"],
                path=fault.facts["path"],
            ) from None

    async def _usable(self, caller: Principal, goal: str, names: Sequence[str]) -> list[agent_pb2.Agent]:
        if not names:
            return await self.tasks.usable(caller, goal)
        return [await self.tasks.agents.runnable(caller.tenant_id, *_reference(name)) for name in names]

    async def _planner(self, tenant: str, planner: str) -> agent_pb2.Agent:
        if planner:
            return await self.tasks.agents.runnable(tenant, *_reference(planner))
        able = [agent for agent in await self.tasks.agents.active(tenant) if _CAPABILITY in agent.capabilities]
        if not able:
            raise AgentNotFound(f'no active agent has the capability "{_CAPABILITY}"; name a planner', agent="")
        return min(able, key=lambda agent: agent.name)

    async def _say(self, caller: Principal, agent: agent_pb2.Agent, asked: str, form: Form) -> str:
        system = f"{agent.system_prompt}\n\n{_PART}"
        utterance = Utterance(
            generation_id=self.ids.new("pln"),
            session_id="",
            agent=agent,
            model=agent.model,
            lines=(Line("system", system), Line("user", asked)),
            max_output_tokens=agent.sampling.max_output_tokens or self.max_output_tokens,
            form=form,
        )
        said: list[str] = []
        async for event in self._heard(caller, utterance):
            if event.HasField("text"):
                said.append(event.text.text)
            elif event.HasField("failover") and event.failover.restarted:
                said.clear()
            elif event.HasField("failed") and event.failed.failure.reason != _NO_PLAN:
                raise from_failure(event.failed.failure)
        return "".join(said)

    async def _heard(
        self, caller: Principal, utterance: Utterance
    ) -> AsyncGenerator[generation_pb2.GenerationEvent, None]:
        """The generation's events, read on where the stream broke: a model that is slow to begin is silent so long."""
        events, after, left = self.inference.generate(caller, utterance), 0, _STREAMS
        while True:
            left -= 1
            try:
                async with aclosing(events):
                    async for event in events:
                        after = event.sequence
                        yield event
            except MeshError as error:
                if error.code is not StatusCode.UNAVAILABLE or not left:
                    raise
                log.warning("plan.stream_broke", generation_id=utterance.generation_id, reason=error.reason_name)
            else:
                return
            events = self.inference.attach(caller, utterance.generation_id, after=after)


def _reference(value: str) -> tuple[str, str]:
    name, _, version = value.partition("@")
    return name, version


def _graph(goal: str, nodes: Sequence[task_graph_pb2.TaskNode]) -> task_graph_pb2.TaskGraph:
    return shapes.graph(task_graph_pb2.TaskGraph(goal=goal, nodes=nodes))
