"""One turn: prompt, generation, events; gone on with where it was, after whatever happened to whoever ran it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from grpc import StatusCode

from agentnet.inference.v1 import generation_pb2
from agentnet.orchestrator.v1 import agent_pb2, event_pb2, turn_pb2
from services.orchestrator.agents import Agents
from services.orchestrator.errors import LeaseLost
from services.orchestrator.modes import mode
from services.orchestrator.peers import InferencePeer, MemoryPeer, TurnMemory, Utterance
from services.orchestrator.plan import StartTurn, worth_another_try
from services.orchestrator.prompts import prompt
from services.orchestrator.record import SessionLog
from services.orchestrator.state import Speaking
from shared.clock import Clock
from shared.errors import Aborted, MeshError, NotFound, OutOfRange, Reason, from_failure
from shared.identity import Principal
from shared.ids import Ids
from shared.log import log
from shared.telemetry import tracer

# Whoever held the generation is gone and so is what it wrote: the turn is tried anew.
_GONE: Final = (Reason.ERROR_REASON_GENERATION_NOT_FOUND, Reason.ERROR_REASON_GENERATION_EXPIRED)
_REATTACH_PAUSES: Final = (0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.5, 2.0, 2.0)
# Text is shown this often at most: what arrives in between is one event.
_SHOWN_EVERY_SECONDS: Final = 0.02
_LONGEST_PAUSE: Final = timedelta(seconds=10)

Event = event_pb2.SessionEvent
Events = AsyncGenerator[generation_pb2.GenerationEvent, None]


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
                last = await self._hear(record, caller, events)
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

    async def _hear(self, record: SessionLog, caller: Principal, events: Events) -> generation_pb2.GenerationEvent:
        """Shows the generation's events as they come; reads on by Attach when the connection breaks."""
        pauses = iter(_REATTACH_PAUSES)
        refused: MeshError | None = None
        while True:
            try:
                return await self._follow(record, events)
            except (NotFound, OutOfRange) as error:
                if error.reason in _GONE:
                    gone = Aborted("the generation is gone", reason=Reason.ERROR_REASON_GENERATION_LOST)
                    raise refused or gone from error
                raise
            except MeshError as error:
                speaking = record.state.speaking
                pause = next(pauses, None) if error.code is StatusCode.UNAVAILABLE else None
                if pause is None or speaking is None:
                    raise
                refused = None if speaking.heard else error
                log.warning("turn.stream_broke", turn_id=speaking.turn_id, reason=error.reason_name)
                await self.sleep(pause)
                generation_id = _generation_id(speaking.turn_id, speaking.attempt)
                events = self.inference.attach(caller, generation_id, after=speaking.heard)

    async def _follow(self, record: SessionLog, events: Events) -> generation_pb2.GenerationEvent:
        """All that has arrived is written at once, so that a slow log never delays the model by more than one write."""
        queue: asyncio.Queue[generation_pb2.GenerationEvent | None] = asyncio.Queue()
        filling = asyncio.create_task(_fill(queue, events))
        try:
            while True:
                arrived = await _drained(queue)
                batch = [event for event in arrived if event is not None]
                shown = _session_events(record, batch)
                if shown:
                    await record.show(shown)
                if batch and batch[-1].WhichOneof("event") in ("finished", "failed"):
                    return batch[-1]
                if None in arrived:
                    await filling  # raises why the stream ended early
                    raise Aborted("the generation's stream ended without its last event")
                if shown:
                    await self.sleep(_SHOWN_EVERY_SECONDS)
        finally:
            filling.cancel()
            await asyncio.gather(filling, return_exceptions=True)

    async def _interrupt(self, record: SessionLog, speaking: Speaking, error: MeshError) -> None:
        broken = event_pb2.TurnInterrupted(turn_id=speaking.turn_id, attempt=speaking.attempt, failure=error.failure())
        log.warning("turn.interrupted", turn_id=speaking.turn_id, attempt=speaking.attempt, reason=error.reason_name)
        await record.commit([Event(turn_interrupted=broken, actor=f"agent:{speaking.agent}")])
        if worth_another_try(broken.failure, speaking.attempt):
            pause = error.retry_after or timedelta(milliseconds=250 * 2**speaking.attempt)
            await self.sleep(min(pause, _LONGEST_PAUSE).total_seconds())

    async def _agent(self, record: SessionLog, reference: str) -> agent_pb2.Agent:
        name, _, version = reference.partition("@")
        return await self.agents.find(record.lease.tenant, name, version)


async def _fill(queue: asyncio.Queue[generation_pb2.GenerationEvent | None], events: Events) -> None:
    """Puts every event, then None when there will be no more, for whatever reason."""
    try:
        async with aclosing(events):
            async for event in events:
                await queue.put(event)
    finally:
        queue.put_nowait(None)


async def _drained(
    queue: asyncio.Queue[generation_pb2.GenerationEvent | None],
) -> list[generation_pb2.GenerationEvent | None]:
    """What is there, at least one."""
    found = [await queue.get()]
    while not queue.empty():
        found.append(queue.get_nowait())
    return found


def _session_events(record: SessionLog, batch: Sequence[generation_pb2.GenerationEvent]) -> list[Event]:
    """Text that came together is one event; verdicts keep their place in it."""
    speaking = record.state.speaking
    if speaking is None:
        return []
    actor = f"agent:{speaking.agent}"
    shown: list[Event] = []
    for event in batch:
        if event.sequence <= speaking.heard:
            continue
        if event.HasField("text"):
            if shown and shown[-1].HasField("tokens_produced"):
                _extend(shown[-1].tokens_produced, event)
            else:
                tokens = event_pb2.TokensProduced(turn_id=speaking.turn_id)
                _extend(tokens, event)
                shown.append(Event(tokens_produced=tokens, actor=actor))
        elif event.HasField("verdict"):
            shown.append(Event(monitor_verdict=_verdict(speaking, event), actor="mesh"))
        elif event.HasField("failover"):
            shown.append(Event(failed_over=_failed_over(speaking, event.failover), actor="mesh"))
    return shown


def _extend(tokens: event_pb2.TokensProduced, event: generation_pb2.GenerationEvent) -> None:
    # Postgres keeps no U+0000.
    tokens.text += event.text.text.replace("\x00", "\N{REPLACEMENT CHARACTER}")
    tokens.token_count += event.text.token_count
    tokens.generation_sequence = event.sequence


def _verdict(speaking: Speaking, event: generation_pb2.GenerationEvent) -> event_pb2.MonitorVerdict:
    found = event.verdict
    return event_pb2.MonitorVerdict(
        turn_id=speaking.turn_id,
        rule=found.rule,
        bundle=found.bundle,
        action=found.action,
        severity=found.severity,
        span_start=found.span_start,
        span_end=found.span_end,
        target=found.target,
        generation_sequence=event.sequence,
    )


def _labels(record: SessionLog, speaking: Speaking) -> dict[str, str | int]:
    return {"session_id": record.lease.session_id, "round": speaking.round, "agent": speaking.agent}


def _failed_over(speaking: Speaking, failover: generation_pb2.Failover) -> event_pb2.FailedOver:
    return event_pb2.FailedOver(
        turn_id=speaking.turn_id,
        from_model=failover.from_model,
        to_model=failover.to_model,
        restarted=failover.restarted,
        failure=failover.failure,
    )


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
