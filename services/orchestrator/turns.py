"""One turn: prompt, generations, tools, events; gone on with where it was, whatever happened to whoever ran it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from agentnet.common.v1 import usage_pb2
from agentnet.inference.v1 import generation_pb2
from agentnet.orchestrator.v1 import agent_pb2, event_pb2, turn_pb2
from services.orchestrator import prompts, toolwork
from services.orchestrator.agents import Agents
from services.orchestrator.errors import IterationsExhausted, LeaseLost
from services.orchestrator.forms import Form
from services.orchestrator.hearing import Events, Hearing, Speech, ToolCalls
from services.orchestrator.holds import held
from services.orchestrator.modes.contract import Part
from services.orchestrator.peers import Exchange, InferencePeer, MemoryPeer, Utterance
from services.orchestrator.plan import worth_another_try
from services.orchestrator.preparing import Compose, Limits, Preparing, output_form, speaker
from services.orchestrator.prompts import Line
from services.orchestrator.reasoning import confidence
from services.orchestrator.reasoning.styles import insights
from services.orchestrator.record import SessionLog
from services.orchestrator.speech import Speaking
from services.orchestrator.toolwork import ToolWork
from shared.clock import Clock
from shared.errors import MeshError, Reason, from_failure
from shared.identity import Principal
from shared.ids import Ids
from shared.log import log
from shared.telemetry import recorded, span

_LONGEST_PAUSE: Final = timedelta(seconds=10)

Event = event_pb2.SessionEvent
Ended = generation_pb2.GenerationFinished | generation_pb2.GenerationFailed


@dataclass(frozen=True, slots=True)
class Turns:
    """Runs the turns of all sessions of this replica."""

    agents: Agents
    inference: InferencePeer
    memory: MemoryPeer
    tools: ToolWork
    clock: Clock
    ids: Ids
    limits: Limits
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    compose: Compose = prompts.prompt

    @property
    def hearing(self) -> Hearing:
        return Hearing(self.inference, self.sleep)

    @property
    def preparing(self) -> Preparing:
        return Preparing(
            self.agents, self.inference, self.memory, self.tools, self.ids, limits=self.limits, compose=self.compose
        )

    async def run(
        self, record: SessionLog, turn_id: str, caller: Principal, utterance: Utterance | None = None
    ) -> None:
        """A try to its end, or to where only a person can move it on. Without an utterance it is one that somebody else
        began: its generation is read on after what is in the log. Raises LeaseLost.
        """
        speaking = record.state.speaking[turn_id]
        if utterance is None:
            log.info("turn.gone_on_with", turn_id=turn_id, iteration=speaking.iteration, after=speaking.heard)
        with span("session.round.turn", **_labels(record, speaking)):
            try:
                await self._speak(record, turn_id, caller, utterance)
            except LeaseLost:
                raise
            except MeshError as error:
                if turn_id not in record.state.speaking:
                    raise  # its end is in the log, which could not be written
                await self._interrupt(record, turn_id, error)

    async def cancel(self, speaking: Speaking, caller: Principal) -> None:
        """Calls off what is being generated."""
        try:
            await self.inference.cancel(caller, speaking.generation_id)
        except MeshError as error:
            log.warning("turn.not_cancelled", turn_id=speaking.turn_id, reason=error.reason_name)

    async def _speak(self, record: SessionLog, turn_id: str, caller: Principal, utterance: Utterance | None) -> None:
        """Until it is finished, broke off, or waits for a person. Raises why it broke off."""
        agent = await self._agent(record, record.state.speaking[turn_id])
        while True:
            speaking = record.state.speaking[turn_id]
            if speaking.open:
                if not await self.tools.answer(record, turn_id, caller, agent=agent):
                    return
                continue
            calls: ToolCalls | None = {} if speaking.messages else None
            last = await self._hear(record, speaking, caller, utterance, calls)
            utterance = None
            speaking = record.state.speaking[turn_id]
            if last.HasField("failed"):
                await self._interrupt(record, turn_id, from_failure(last.failed.failure), spent=last.failed)
                return
            if not calls:
                await self._end(record, speaking, agent, last.finished)
                return
            if speaking.iteration >= speaking.max_iterations:
                error = IterationsExhausted(
                    "the turn called tools and never answered", max_iterations=str(speaking.max_iterations)
                )
                await self._interrupt(record, turn_id, error, spent=last.finished)
                return
            now = self.clock.now()
            await record.commit(toolwork.asked_for(record, speaking, calls, last.finished, now=now))

    async def _hear(
        self,
        record: SessionLog,
        speaking: Speaking,
        caller: Principal,
        utterance: Utterance | None,
        calls: ToolCalls | None,
    ) -> generation_pb2.GenerationEvent:
        labels: dict[str, str | int] = {
            "generation_id": speaking.generation_id,
            "iteration": speaking.iteration,
            "agent": speaking.agent,
        }
        with span("agent.inference", **labels):
            await record.look()
            gather = record.quiet
            events = await self._events(record, speaking, caller, utterance, gather=gather)
            speech = _speech(record, speaking)
            last = await self.hearing.hear(caller, speech, events, calls=calls, gathered=bool(gather))
        _watched(last)
        return last

    async def _events(
        self,
        record: SessionLog,
        speaking: Speaking,
        caller: Principal,
        utterance: Utterance | None,
        *,
        gather: float,
    ) -> Events:
        if utterance is None and (speaking.heard or not speaking.messages):
            # What asks for tools is not in the log: such a generation is read from its first event again.
            after = 0 if speaking.messages else speaking.heard
            return self.inference.attach(caller, speaking.generation_id, after=after)
        utterance = utterance or await self._again(record, speaking, caller)
        token = await self.tools.holds.leave.token(caller, speaking.override_id)
        return self.inference.generate(caller, replace(utterance, gather=gather, override_token=token))

    async def _again(self, record: SessionLog, speaking: Speaking, caller: Principal) -> Utterance:
        """The call of the model that the log asks for: the prompt, then what was said between it and its tools."""
        agent = await self._agent(record, speaking)
        form = _form(record, speaking, agent)
        exchanges = tuple(
            Exchange(text, tuple(call for call in speaking.calls if call.iteration == number))
            for number, text in enumerate(speaking.earlier, start=1)
        )
        return Utterance(
            generation_id=speaking.generation_id,
            session_id=record.lease.session_id,
            agent=agent,
            model=agent.model,
            lines=tuple(Line(role, text) for role, text in speaking.messages),
            max_output_tokens=self.limits.answer(agent, form),
            exchanges=exchanges,
            tools=await self.tools.offered(caller, agent),
            may_call=speaking.iteration < speaking.max_iterations,
            form=form,
            team=record.state.session.team,
            sub_agent=record.state.session.delegated.sub_agent,
        )

    async def _end(
        self,
        record: SessionLog,
        speaking: Speaking,
        agent: agent_pb2.Agent,
        finished: generation_pb2.GenerationFinished,
    ) -> None:
        """Puts the finished turn in the log, unless its answer is not of the form it must have."""
        form = _form(record, speaking, agent)
        try:
            if form is not None:
                form.read(speaking.latest)
        except MeshError as error:
            await self._interrupt(record, speaking.turn_id, error, spent=finished)
            return
        turn = _turn(record, speaking, finished)
        turn.content = speaking.text if form is None else speaking.latest
        turn.style_insights.extend(insights(agent, turn.content))
        confidence.judge(turn, verdicts=speaking.verdicts)
        turn.end_time.FromDatetime(record.now())
        finish = Event(turn_finished=event_pb2.TurnFinished(turn=turn), actor=f"agent:{turn.agent}")
        await record.commit([finish])

    async def _interrupt(
        self, record: SessionLog, turn_id: str, error: MeshError, *, spent: Ended | None = None
    ) -> None:
        speaking = record.state.speaking[turn_id]
        broken = event_pb2.TurnInterrupted(turn_id=turn_id, attempt=speaking.attempt, failure=error.failure())
        _add_up(broken.usage, broken.cost, speaking, spent)
        log.warning("turn.interrupted", turn_id=turn_id, attempt=speaking.attempt, reason=error.reason_name)
        events = [Event(turn_interrupted=broken, actor=f"agent:{speaking.agent}")]
        if held(broken.failure):
            session_id, now = record.lease.session_id, self.clock.now()
            events.append(self.tools.holds.turn(speaking, broken.failure, session_id=session_id, now=now))
        await record.commit(events)
        at_once = error.reason == Reason.ERROR_REASON_TURN_OUTPUT_INVALID
        if not at_once and worth_another_try(broken.failure, speaking.attempt):
            pause = error.retry_after or timedelta(milliseconds=250 * 2**speaking.attempt)
            await self.sleep(min(pause, _LONGEST_PAUSE).total_seconds())

    async def _agent(self, record: SessionLog, speaking: Speaking) -> agent_pb2.Agent:
        return await speaker(self.agents, record, speaking.agent)


def _form(record: SessionLog, speaking: Speaking, agent: agent_pb2.Agent) -> Form | None:
    part = Part(speaking.agent, speaking.phase)
    return prompts.form_of(record.state, speaking.round, part) or output_form(agent)


def _watched(last: generation_pb2.GenerationEvent) -> None:
    """The policy monitors ran inside inference, in the stream; their times are told there and shown here."""
    ended = last.finished if last.HasField("finished") else last.failed
    if not ended.monitors or not recorded():
        return
    spent = {f"monitor.{found.rule}.ms": found.elapsed.ToNanoseconds() / 1e6 for found in ended.monitors}
    states = {f"monitor.{found.rule}.status": found.status for found in ended.monitors}
    with span("monitor.sequence", **spent, **states):
        return


def _labels(record: SessionLog, speaking: Speaking) -> dict[str, str | int]:
    return {
        "session_id": record.lease.session_id,
        "turn_id": speaking.turn_id,
        "round": speaking.round,
        "phase": speaking.phase,
        "agent": speaking.agent,
    }


def _turn(record: SessionLog, speaking: Speaking, finished: generation_pb2.GenerationFinished) -> turn_pb2.Turn:
    turn = turn_pb2.Turn(
        id=speaking.turn_id,
        session_id=record.lease.session_id,
        round=speaking.round,
        agent=speaking.agent,
        prompt=speaking.prompt,
        context=speaking.context,
        usage=finished.usage,
        cost=finished.cost,
        monitors=[
            turn_pb2.MonitorResult(name=found.rule, status=found.status, elapsed=found.elapsed)
            for found in finished.monitors
        ],
        time_to_first_token=finished.time_to_first_token if finished.HasField("time_to_first_token") else None,
        attempt=speaking.attempt,
        phase=speaking.phase,
        iterations=speaking.iteration,
        tool_calls=toolwork.uses(speaking),
    )
    _add_up(turn.usage, turn.cost, speaking, finished)
    turn.start_time.FromDatetime(speaking.started_at)
    return turn


def _add_up(usage: usage_pb2.Usage, cost: usage_pb2.Cost, speaking: Speaking, last: Ended | None) -> None:
    """Writes what a try spent: its earlier iterations, which asked for tools, and the last one."""
    if last is not None:
        usage.CopyFrom(last.usage)
        cost.CopyFrom(last.cost)
    usage.input_tokens += speaking.input_tokens
    usage.output_tokens += speaking.output_tokens
    cost.micros_usd += speaking.cost_micros_usd


def _speech(record: SessionLog, began: Speaking) -> Speech:
    """A turn's place in its session's log."""
    return Speech(
        record,
        began.turn_id,
        began.generation_id,
        f"agent:{began.agent}",
        lambda: record.state.speaking.get(began.turn_id, began).heard,
    )
