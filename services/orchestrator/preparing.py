"""What comes before a turn: asking for what it is to know, then, of the state alone, its prompt and first events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agentnet.inference.v1 import message_pb2
from agentnet.orchestrator.v1 import agent_pb2, event_pb2, progress_pb2, turn_pb2
from services.orchestrator import forms, modes, prompts, toolwork
from services.orchestrator.agents import Agents
from services.orchestrator.forks.fork import overridden
from services.orchestrator.forms import Form
from services.orchestrator.modes.contract import Part
from services.orchestrator.peers import InferencePeer, MemoryPeer, Utterance
from services.orchestrator.plan import StartTurn
from services.orchestrator.prompts import Brief, Known, Prompt
from services.orchestrator.record import SessionLog
from services.orchestrator.state import SessionState
from services.orchestrator.toolwork import ToolWork
from shared.identity import Principal
from shared.ids import Ids

# An answer of a given form needs room for all of it.
_FORM_TOKENS: Final = 512

Event = event_pb2.SessionEvent
Compose = Callable[[SessionState, Brief], Prompt]


@dataclass(frozen=True, slots=True)
class Limits:
    """What turns may have, in tokens, when their agents and models do not say."""

    output: int
    prompt: int = 6_000
    memory: int = 600

    def answer(self, agent: agent_pb2.Agent, form: Form | None) -> int:
        """How long an answer may be."""
        output = agent.sampling.max_output_tokens or self.output
        return max(output, _FORM_TOKENS) if form is not None else output


@dataclass(frozen=True, slots=True)
class Learned:
    """What a turn that is to start was told by others."""

    step: StartTurn
    agent: agent_pb2.Agent
    known: tuple[Known, ...]
    tools: tuple[message_pb2.ToolDefinition, ...]
    room: int


@dataclass(frozen=True, slots=True)
class Prepared:
    """A try that is to start: what goes into the log first, then what is asked of the model."""

    turn_id: str
    events: tuple[Event, ...]
    utterance: Utterance


@dataclass(frozen=True, slots=True)
class Preparing:
    """Prepares the turns of all sessions of this replica."""

    agents: Agents
    inference: InferencePeer
    memory: MemoryPeer
    tools: ToolWork
    ids: Ids
    limits: Limits
    compose: Compose = prompts.prompt

    async def learn(self, record: SessionLog, step: StartTurn, caller: Principal) -> Learned:
        """Asks for all that a try needs. The log may go on meanwhile."""
        state, part = record.state, step.part
        agent = await speaker(self.agents, record, part.agent)
        led = modes.led(part)
        asked = state.session.topic_start if led else modes.mode(state.session.mode).question(state, step.round, part)
        found = await self.memory.recall(caller, session_id=state.session.id, agent=agent.name, query=asked)
        tools = () if led else await self.tools.offered(caller, agent)
        return Learned(step, agent, found.known, tools, await self._room(caller, agent))

    def prepared(self, record: SessionLog, learned: Learned) -> Prepared:
        """The try, of the log as it is now and what was learned."""
        state, step, agent = record.state, learned.step, learned.agent
        brief = Brief(
            step.part,
            step.round,
            system_prompt=agent.system_prompt,
            known=learned.known,
            broken=step.broken,
            limit_tokens=learned.room,
            memory_tokens=self.limits.memory,
            output_form=output_form(agent),
        )
        made = self.compose(state, brief)
        turn_id = step.turn_id or self.ids.new("trn")
        utterance = Utterance(
            generation_id=f"{turn_id}-{step.attempt}",
            session_id=state.session.id,
            agent=agent,
            model=agent.model,
            lines=made.lines,
            max_output_tokens=self.limits.answer(agent, made.form),
            tools=learned.tools,
            form=made.form,
            team=state.session.team,
            sub_agent=state.session.delegated.sub_agent,
        )
        started = _started(turn_id, step, made)
        if learned.tools:
            started.max_iterations = toolwork.iterations(state.session)
            started.messages.extend(turn_pb2.PromptMessage(role=line.role, text=line.text) for line in made.lines)
        return Prepared(turn_id, tuple(_opening(started, step.part, made)), utterance)

    async def _room(self, caller: Principal, agent: agent_pb2.Agent) -> int:
        """Tokens a prompt of the agent may have: the mesh's limit, and what its model leaves beside the answer."""
        window = await self.inference.context_tokens(caller, agent.model)
        if not window:
            return self.limits.prompt
        return min(self.limits.prompt, max(window - self.limits.answer(agent, None), window // 2))


async def speaker(agents: Agents, record: SessionLog, reference: str) -> agent_pb2.Agent:
    """An agent, by name and version, as it speaks in this session."""
    name, _, version = reference.partition("@")
    return overridden(await agents.find(record.lease.tenant, name, version), record.state.session)


def output_form(agent: agent_pb2.Agent) -> Form | None:
    """The form an agent's answers have wherever its part asks for none."""
    return forms.from_struct("output", agent.output_schema) if agent.HasField("output_schema") else None


def _started(turn_id: str, step: StartTurn, made: Prompt) -> event_pb2.TurnStarted:
    context = turn_pb2.TurnContext(short_term=made.short_term)
    for known in made.known:
        found = context.episodic_refs if known.episodic else context.semantic_refs
        found.add(id=known.id, score=known.score)
    return event_pb2.TurnStarted(
        turn_id=turn_id,
        round=step.round,
        agent=step.part.agent,
        prompt=made.question,
        attempt=step.attempt,
        context=context,
        phase=step.part.phase,
    )


def _opening(started: event_pb2.TurnStarted, part: Part, made: Prompt) -> list[Event]:
    """What goes into the log before the model is asked."""
    actor = f"agent:{part.agent}"
    events = [Event(turn_started=started, actor=actor)]
    if part.handed_by:
        handed = event_pb2.HandedOff(source=part.handed_by, target=part.agent, reason=part.why)
        events.insert(0, Event(handed_off=handed, actor=f"agent:{part.handed_by}"))
    if made.reduced is not None:
        reduced = progress_pb2.PromptReduced(
            turn_id=started.turn_id,
            tokens_before=made.reduced.before,
            tokens_after=made.reduced.after,
            limit_tokens=made.reduced.limit,
            parts=made.reduced.parts,
        )
        events.append(Event(prompt_reduced=reduced))
    return events
