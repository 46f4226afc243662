"""Chains: an agent's answer goes on to those it chains to. A chain is laid out before it runs, as a task graph, whose
log keeps its state and brings it through any crash.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

from google.protobuf import json_format

from agentnet.orchestrator.v1 import agent_pb2, relationship_service_pb2, task_graph_pb2
from services.orchestrator.agents.inputs import check_input
from services.orchestrator.agents.lineage import KEY
from services.orchestrator.agents.registry import Agents
from services.orchestrator.agents.relationships import CHAINS, FALLS_BACK, Relationships
from services.orchestrator.agents.stores import Relationship
from services.orchestrator.errors import ChainLimitReached, TaskGraphNotFound
from services.orchestrator.sessions import Sessions
from services.orchestrator.task_graphs import Shown, TaskGraphs
from shared import fields
from shared.clock import Clock
from shared.identity import Grant, Principal, Purse

Chain = relationship_service_pb2.Chain
_PURSE: Final = "prs"
_DEPTH: Final = 3
_RUNS: Final = 32
_TIMEOUT: Final = timedelta(minutes=10)
_LONGEST_RUN: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a caller asks of a chain; 0 and None leave it to the first agent."""

    name: str
    version: str
    prompt: str
    max_depth: int = 0
    timeout: timedelta | None = None
    cost_micros_usd: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """One run of one agent."""

    id: str
    agent: str
    depth: int
    source: str = ""
    after: tuple[str, ...] = ()
    condition: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """A chain before it runs: its steps, and the edges beyond its depth."""

    steps: tuple[Step, ...]
    cut_off: tuple[str, ...] = ()


def laid_out(
    first: str, edges: Mapping[str, Sequence[Relationship]], *, depth: int, runs: int, parallel: frozenset[str]
) -> Layout:
    """The steps of a chain, each agent before those it hands over to. Agents that one in `parallel` chains to run at
    once, those of another one after the other. Raises ChainLimitReached when there are more than `runs`.
    """
    steps, cut_off = [Step(first, first, 1)], list[str]()
    times = Counter([first])
    for step in steps:
        before: tuple[str, ...] = ()
        for edge in edges.get(step.agent, ()):
            if step.depth >= depth:
                cut_off.append(f"{edge.source} > {edge.target}")
                continue
            times[edge.target] += 1
            number = times[edge.target]
            name = edge.target if number == 1 else f"{edge.target}-{number}"
            steps.append(Step(name, edge.target, step.depth + 1, step.id, (step.id, *before), edge.condition))
            if len(steps) > runs:
                why = f"the chain would take more than {runs} runs"
                raise ChainLimitReached(why, limit=str(runs), kind="runs")
            before = () if step.agent in parallel else (name,)
    return Layout(tuple(steps), tuple(sorted(set(cut_off))))


@dataclass(frozen=True, slots=True)
class Chains:
    """The chains of all tenants, one tenant a call."""

    relationships: Relationships
    agents: Agents
    graphs: TaskGraphs
    sessions: Sessions
    clock: Clock

    async def run(self, caller: Principal, asked: Asked, *, request_id: str | None) -> Chain:
        """Starts a chain. Raises AgentNotFound, AgentArchived, AgentInputInvalid and ChainLimitReached."""
        tenant = caller.tenant_id
        first = await self.agents.runnable(tenant, asked.name, asked.version)
        check_input(first, asked.prompt)
        edges = await self._edges(tenant, CHAINS)
        deepest = first.max_chain_depth or _DEPTH
        layout = laid_out(
            first.name,
            edges,
            depth=min(asked.max_depth or deepest, deepest),
            runs=first.chain_limits.max_runs or _RUNS,
            parallel=await self._parallel(tenant, first, edges),
        )
        within = self._within(caller, first, asked)
        timeout = min((within.expires_at or self.clock.now()) - self.clock.now(), _LONGEST_RUN)
        fallbacks = {name: found[0].target for name, found in (await self._edges(tenant, FALLS_BACK)).items()}
        reference = f"{first.name}@{first.version}"
        graph = task_graph_pb2.TaskGraph(goal=asked.prompt, max_parallel_tasks=10)
        for step in layout.steps:
            agent = reference if step.depth == 1 else step.agent
            graph.nodes.append(_node(step, agent, asked.prompt, timeout, fallbacks.get(step.agent, "")))
        note = {"first": reference, "cut_off": list(layout.cut_off), "steps": _noted(layout)}
        metadata = fields.struct({KEY: note})
        kept = await self.graphs.execute(within, graph, request_id=request_id, metadata=metadata)
        return await self.find(tenant, kept.graph.id)

    async def find(self, tenant: str, chain_id: str) -> Chain:
        """How far a chain is. Raises TaskGraphNotFound, also for a graph that is none."""
        shown = await self.graphs.shown(tenant, chain_id)
        session = await self.sessions.find(tenant, shown.session_id)
        note = json_format.MessageToDict(session.metadata).get(KEY)
        if not isinstance(note, dict):
            raise TaskGraphNotFound(f"no chain {chain_id}", task_graph_id=chain_id)
        chain = _chain(shown, note)
        chain.expire_time.CopyFrom(session.expire_time)
        chain.cost_limit_micros_usd = session.grant.budget_micros_usd
        return chain

    def _within(self, caller: Principal, first: agent_pb2.Agent, asked: Asked) -> Principal:
        """The caller, narrowed to what the chain may take: never more than the agent allows or the caller may."""
        limits = first.chain_limits
        longest = limits.timeout.ToTimedelta() or _TIMEOUT
        ends = self.clock.now() + min(asked.timeout or longest, longest)
        grant = caller.grant or Grant()
        if caller.grant and caller.expires_at:
            ends = min(ends, caller.expires_at)
        budgets = [b for b in (limits.cost_micros_usd, asked.cost_micros_usd, grant.budget_micros_usd or 0) if b]
        if budgets:
            grant = grant.given(Purse(self.sessions.ids.new(_PURSE), min(budgets)))
        return replace(caller, grant=grant, expires_at=ends)

    async def _edges(self, tenant: str, kind: str) -> dict[str, list[Relationship]]:
        found: dict[str, list[Relationship]] = {}
        for edge in await self.relationships.every(tenant, agent="", kind=kind):
            found.setdefault(edge.source, []).append(edge)
        return found

    async def _parallel(
        self, tenant: str, first: agent_pb2.Agent, edges: Mapping[str, Sequence[Relationship]]
    ) -> frozenset[str]:
        sources = [await self.agents.find(tenant, name) for name in edges if name != first.name]
        return frozenset(agent.name for agent in (first, *sources) if agent.chain_strategy == "parallel")


def _node(step: Step, agent: str, prompt: str, timeout: timedelta, fallback: str) -> task_graph_pb2.TaskNode:
    asked = prompt if step.depth == 1 else f"{step.source} has answered. Go on with the task from there: {prompt}"
    made = task_graph_pb2.TaskNode(
        id=step.id, agent=agent, prompt=asked[:32_768], depends_on=step.after, fallback_agent=fallback, max_attempts=2
    )
    made.timeout.FromTimedelta(max(timeout, timedelta(seconds=1)))
    if step.source:
        # Who runs after a sibling waits for it, and runs even when it failed: only its source has to have answered.
        came = f'results["{step.source}"].success'
        made.condition = f"{came} && ({step.condition})" if step.condition else came
    return made


def _noted(layout: Layout) -> list[dict[str, Any]]:
    return [{"id": step.id, "source": step.source, "depth": step.depth} for step in layout.steps]


def _chain(shown: Shown, note: Mapping[str, Any]) -> Chain:
    results = {result.node_id: result for result in shown.results}
    nodes = {node.id: node for node in shown.graph.nodes}
    chain = Chain(
        id=shown.graph.id,
        session_id=shown.session_id,
        status=_status(shown.graph.status),
        cut_off=note.get("cut_off", ()),
        cost_micros_usd=sum(result.cost_micros_usd for result in shown.results),
    )
    for entry in note["steps"]:
        result, source = results.get(entry["id"]), entry["source"]
        step = chain.steps.add(
            id=entry["id"],
            source=nodes[source].agent if source else "",
            target=(result.agent if result else "") or nodes[entry["id"]].agent,
            depth=int(entry["depth"]),
            status=_status(result.status) if result else "pending",
        )
        if result:
            step.output, step.cost_micros_usd = result.output, result.cost_micros_usd
            step.elapsed.CopyFrom(result.elapsed)
            if result.HasField("failure"):
                step.failure.CopyFrom(result.failure)
    chain.depth = max(step.depth for step in chain.steps)
    chain.output = _output(chain)
    return chain


def _output(chain: Chain) -> str:
    """What the last ones said: those that completed and after whom nobody did."""
    done = [step for step in chain.steps if step.status == "completed"]
    went_on = {step.source for step in done}
    last = [step for step in done if step.target not in went_on]
    if len(last) == 1:
        return last[0].output
    return "\n\n".join(f"## {step.id}\n{step.output}" for step in last)


def _status(found: task_graph_pb2.TaskStatus.ValueType) -> str:
    return task_graph_pb2.TaskStatus.Name(found).removeprefix("TASK_STATUS_").lower()
