"""Forking a session: its log up to a place, then a word of what is different, then it goes on by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agentnet.orchestrator.v1 import agent_pb2, event_pb2, session_pb2
from services.orchestrator.agents import Agents
from services.orchestrator.errors import ForkUnsupported, SequenceOutOfRange
from services.orchestrator.forks.copy import copied
from services.orchestrator.modes import cast
from shared.clock import Clock
from shared.errors import InvalidArgument
from shared.identity import Principal
from shared.ids import Ids

Event = event_pb2.SessionEvent
GRAPH = "task_graph"


@dataclass(frozen=True, slots=True)
class Fork:
    """Where to go on from, and how."""

    sequence: int
    overrides: session_pb2.SessionOverrides
    side_effects: bool


@dataclass(frozen=True, slots=True)
class Forking:
    """Makes the logs of forks."""

    agents: Agents
    clock: Clock
    ids: Ids

    async def log(
        self, forker: Principal, source: session_pb2.Session, events: Sequence[Event], fork: Fork
    ) -> tuple[session_pb2.Session, list[Event]]:
        """The fork and the log it begins with.

        Raises ForkUnsupported, SequenceOutOfRange, InvalidArgument, AgentNotFound and AgentArchived.
        """
        if source.mode == GRAPH:
            raise ForkUnsupported("a task graph is resumed from a checkpoint, not forked", mode=source.mode)
        kept = _kept(events, fork.sequence)
        session = await self._session(forker.tenant_id, source, fork, last=kept[-1].sequence)
        log = copied(kept, session.id, self.ids)
        forked = Event(
            session_id=session.id,
            sequence=session.last_sequence,
            actor=f"user:{forker.subject}",
            session_forked=session_pb2.SessionForked(session=session),
        )
        forked.time.CopyFrom(session.start_time)
        return session, [*log, forked]

    async def _session(self, tenant: str, source: session_pb2.Session, fork: Fork, *, last: int) -> session_pb2.Session:
        agents = await self._agents(tenant, source.agents, fork.overrides.agents)
        if unheard := sorted(set(fork.overrides.system_prompts) - {"*", *map(cast.short, agents)}):
            raise InvalidArgument(f"{unheard[0]} takes no part in the fork", field="overrides.system_prompts")
        session = session_pb2.Session(
            id=self.ids.new("ses"),
            agents=agents,
            status=session_pb2.SESSION_STATUS_PENDING,
            max_rounds=fork.overrides.max_rounds or source.max_rounds,
            last_sequence=last + 1,
            topic_final=source.topic_start,
            origin=session_pb2.SessionOrigin(session_id=source.id, sequence=last, kind="fork"),
            overrides=_inherited(source, fork.overrides),
            effects_off=not fork.side_effects,
        )
        for field, value in source.ListFields():
            if field.name in _SAME:
                _copy(session, field.name, value)
        _recast(session.options, dict(zip(source.agents, agents, strict=True)))
        session.start_time.FromDatetime(self.clock.now())
        return session

    async def _agents(self, tenant: str, before: Sequence[str], instead: Mapping[str, str]) -> list[str]:
        names = [reference.partition("@")[0] for reference in before]
        if unknown := sorted(set(instead) - set(names)):
            raise InvalidArgument(f"{unknown[0]} takes no part in the session", field="overrides.agents")
        agents: list[str] = []
        for name, reference in zip(names, before, strict=True):
            if name in instead:
                other, _, version = instead[name].partition("@")
                agent = await self.agents.runnable(tenant, other, version)
                agents.append(f"{agent.name}@{agent.version}")
            else:
                agents.append(reference)
        await self.agents.all_there(tenant, agents)
        if len({reference.partition("@")[0] for reference in agents}) < len(agents):
            raise InvalidArgument("each agent takes part once", field="overrides.agents")
        return agents


def overridden(agent: agent_pb2.Agent, session: session_pb2.Session) -> agent_pb2.Agent:
    """The agent as it speaks in this session."""
    if not session.HasField("overrides"):
        return agent
    overrides = session.overrides
    made = agent_pb2.Agent()
    made.CopyFrom(agent)
    made.model = overrides.model or agent.model
    prompts = overrides.system_prompts
    made.system_prompt = prompts.get(agent.name) or prompts.get("*") or agent.system_prompt
    if overrides.bundles:
        del made.monitors[:]
        made.monitors.extend(overrides.bundles)
    return made


# What a fork has from its source as it is; what it came to is counted anew by its own log.
_SAME = frozenset(
    field.name
    for field in session_pb2.Session.DESCRIPTOR.fields
    if field.name
    not in {
        "id", "agents", "max_rounds", "status", "stop_reason", "converged", "rounds_executed", "last_sequence", "usage",
        "cost_micros_usd", "start_time", "end_time", "failure", "round_similarities", "topic_final", "origin",
        "overrides", "effects_off", "result", "decision", "stop_measure", "inputs",
    }
)  # fmt: skip


def _recast(options: session_pb2.SessionOptions, instead: Mapping[str, str]) -> None:
    """Who takes an agent's place has its part and its priority."""
    for role in cast.ROLES:
        named = getattr(options, role)
        setattr(options, role, instead.get(named, named))
    names = {cast.short(before): cast.short(after) for before, after in instead.items()}
    priorities = {names.get(name, name): priority for name, priority in options.priorities.items()}
    options.priorities.clear()
    options.priorities.update(priorities)


def _copy(session: session_pb2.Session, name: str, value: object) -> None:
    try:
        setattr(session, name, value)
    except AttributeError:
        getattr(session, name).MergeFrom(value)


def _inherited(source: session_pb2.Session, given: session_pb2.SessionOverrides) -> session_pb2.SessionOverrides:
    """A fork of a fork keeps what it does not say otherwise."""
    made = session_pb2.SessionOverrides(model=source.overrides.model, bundles=source.overrides.bundles)
    made.system_prompts.update(source.overrides.system_prompts)
    if given.bundles:
        del made.bundles[:]
    made.MergeFrom(given)
    return made


def _kept(events: Sequence[Event], sequence: int) -> list[Event]:
    last = events[-1].sequence - (1 if events[-1].HasField("session_finished") else 0)
    if sequence > last:
        raise SequenceOutOfRange(f"the log can be forked up to {last}", field="sequence", last_sequence=str(last))
    return list(events[: sequence or last])
