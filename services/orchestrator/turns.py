"""One turn: prompt, generation, events; gone on with where it was, after whatever happened to whoever ran it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from agentnet.inference.v1 import generation_pb2
from agentnet.orchestrator.v1 import agent_pb2, event_pb2, turn_pb2
from services.orchestrator.agents import Agents
from services.orchestrator.errors import LeaseLost
from services.orchestrator.forks.fork import overridden
from services.orchestrator.hearing import Events, Hearing
from services.orchestrator.modes import mode
from services.orchestrator.peers import InferencePeer, MemoryPeer, TurnMemory, Utterance
from services.orchestrator.plan import StartTurn, worth_another_try
from services.orchestrator.prompts import prompt
from services.orchestrator.record import SessionLog
from services.orchestrator.state import Speaking
from shared.clock import Clock
from shared.errors import MeshError, from_failure
from shared.identity import Principal
from shared.ids import Ids
from shared.log import log
from shared.telemetry import tracer

_LONGEST_PAUSE: Final = timedelta(seconds=10)

Event = event_pb2.SessionEvent


@dataclass(frozen=True, slots=True)
class _Speech:
    """A turn's place in its session's log."""

    record: SessionLog
    began: Speaking

    @property
    def turn_id(self) -> str:
        return self.began.turn_id

    @property
    def generation_id(self) -> str:
        return _generation_id(self.began.turn_id, self.began.attempt)

    @property
    def actor(self) -> str:
        return f"agent:{self.began.agent}"

    @property
    def heard(self) -> int:
        speaking = self.record.state.speaking
        return speaking.heard if speaking else self.began.heard

    async def show(self, events: Sequence[Event], *, last: bool) -> float:
        if not last:
            return await self.record.show(events)
        self.record.stage(events)
        return 0.0


@dataclass(frozen=True, slots=True)
class Turns:
    """Runs the turns of all sessions of this replica."""

    agents: Agents
    inference: InferencePeer
    memory: MemoryPeer
    clock: Clock
    ids: Ids
    max_output_tokens: int
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    @property
    def hearing(self) -> Hearing:
        return Hearing(self.inference, self.sleep)

    async def start(self, record: SessionLog, step: StartTurn, caller: Principal) -> None:
        """A new try of a turn, to its end."""
        agent = await self._agent(record, step.agent)
        session = record.state.session
        question = mode(session.mode).question(topic=session.topic_start, round_number=step.round)
        known = await self.memory.recall(caller, session_id=session.id, agent=agent.name, query=question)
        turn_id = step.turn_id or self.ids.new("trn")
        started = event_pb2.TurnStarted(
            turn_id=turn_id,
            round=step.round,
            agent=step.agent,
            prompt=question,
            attempt=step.attempt,
            context=_context(record, known),
        )
        await record.commit([Event(turn_started=started, actor=f"agent:{step.agent}")])
        lines = prompt(
            record.state,
            mode(session.mode),
            agent=step.agent,
            system_prompt=agent.system_prompt,
            round_number=step.round,
            known=known.known,
        )
        utterance = Utterance(
            generation_id=_generation_id(turn_id, step.attempt),
            session_id=session.id,
            agent=agent,
            model=agent.model,
            lines=lines,
            max_output_tokens=agent.sampling.max_output_tokens or self.max_output_tokens,
        )
        await self._speak(record, caller, self.inference.generate(caller, utterance))

    async def go_on(self, record: SessionLog, speaking: Speaking, caller: Principal) -> None:
        """A turn someone else began: its generation is read on after what is in the log."""
        generation_id = _generation_id(speaking.turn_id, speaking.attempt)
        log.info("turn.gone_on_with", turn_id=speaking.turn_id, after=speaking.heard)
        events = self.inference.attach(caller, generation_id, after=speaking.heard)
        await self._speak(record, caller, events)

    async def cancel(self, record: SessionLog, caller: Principal) -> None:
        """Calls off what is being generated."""
        if speaking := record.state.speaking:
            try:
                await self.inference.cancel(caller, _generation_id(speaking.turn_id, speaking.attempt))
            except MeshError as error:
                log.warning("turn.not_cancelled", turn_id=speaking.turn_id, reason=error.reason_name)

    async def _speak(self, record: SessionLog, caller: Principal, events: Events) -> None:
        speaking = record.state.speaking
        assert speaking is not None  # noqa: S101 - a turn has been started
        with tracer.start_as_current_span("session.round.turn", attributes=_labels(record, speaking)):
            try:
                last = await self.hearing.hear(caller, _Speech(record, speaking), events)
            except LeaseLost:
                raise
            except MeshError as error:
                await self._interrupt(record, speaking, error)
                return
            if last.HasField("failed"):
                await self._interrupt(record, speaking, from_failure(last.failed.failure))
                return
            turn = _turn(record, last.finished)
            turn.end_time.FromDatetime(self.clock.now())
            await record.commit(
                [Event(turn_finished=event_pb2.TurnFinished(turn=turn), actor=f"agent:{turn.agent}")], turn=turn
            )
        await self.memory.append(
            caller,
            session_id=turn.session_id,
            turn_id=turn.id,
            agent=turn.agent.partition("@")[0],
            content=turn.content,
        )

    async def _interrupt(self, record: SessionLog, speaking: Speaking, error: MeshError) -> None:
        broken = event_pb2.TurnInterrupted(turn_id=speaking.turn_id, attempt=speaking.attempt, failure=error.failure())
        log.warning("turn.interrupted", turn_id=speaking.turn_id, attempt=speaking.attempt, reason=error.reason_name)
        await record.commit([Event(turn_interrupted=broken, actor=f"agent:{speaking.agent}")])
        if worth_another_try(broken.failure, speaking.attempt):
            pause = error.retry_after or timedelta(milliseconds=250 * 2**speaking.attempt)
            await self.sleep(min(pause, _LONGEST_PAUSE).total_seconds())

    async def _agent(self, record: SessionLog, reference: str) -> agent_pb2.Agent:
        name, _, version = reference.partition("@")
        return overridden(await self.agents.find(record.lease.tenant, name, version), record.state.session)


def _labels(record: SessionLog, speaking: Speaking) -> dict[str, str | int]:
    return {"session_id": record.lease.session_id, "round": speaking.round, "agent": speaking.agent}


def _turn(record: SessionLog, finished: generation_pb2.GenerationFinished) -> turn_pb2.Turn:
    speaking = record.state.speaking
    assert speaking is not None  # noqa: S101 - it has just spoken
    turn = turn_pb2.Turn(
        id=speaking.turn_id,
        session_id=record.lease.session_id,
        round=speaking.round,
        agent=speaking.agent,
        prompt=speaking.prompt,
        content=speaking.text,
        context=speaking.context,
        usage=finished.usage,
        cost=finished.cost,
        monitors=[
            turn_pb2.MonitorResult(name=found.rule, status=found.status, elapsed=found.elapsed)
            for found in finished.monitors
        ],
        time_to_first_token=finished.time_to_first_token if finished.HasField("time_to_first_token") else None,
        attempt=speaking.attempt,
    )
    turn.start_time.FromDatetime(speaking.started_at)
    return turn


def _context(record: SessionLog, memory: TurnMemory) -> turn_pb2.TurnContext:
    tail = [f"{turn.agent.partition('@')[0]}: {turn.content}" for turn in record.state.spoken[-8:]]
    found = [turn_pb2.MemoryReference(id=known.id, score=known.score) for known in memory.known]
    return turn_pb2.TurnContext(short_term=tail, semantic_refs=found)


def _generation_id(turn_id: str, attempt: int) -> str:
    return f"{turn_id}-{attempt}"
