"""Where a generation is thought: by a model through inference or by the agent's engine, under one contract.

Wraps inference for all that ask it (turns, tasks, plans): to them an agent with an engine is an agent like any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final, Protocol

from agentnet.common.v1 import usage_pb2
from agentnet.inference.v1 import generation_pb2
from services.orchestrator.agents.inputs import output_fault
from services.orchestrator.errors import ChainLimitReached, DelegationEnded, EngineFailed, OutputInvalid
from services.orchestrator.peers import InferencePeer, MemoryPeer, Utterance
from services.orchestrator.prompts import Known, Line
from services.orchestrator.reasoning import styles
from services.orchestrator.reasoning.engines import engine_of, thinks_by_model
from services.orchestrator.reasoning.engines.contract import Generated, Question
from services.orchestrator.reasoning.governance import OUTPUT, PROMPT, Judged, PolicyPeer
from services.orchestrator.reasoning.skills import Skills
from shared.clock import Clock
from shared.errors import MeshError, Unavailable, from_failure
from shared.identity import Principal
from shared.log import log
from shared.rpc import log as calls
from shared.telemetry import tracer

# What an engine's own fault looks like. Anything else is a fault of ours and ends as one.
_FAULTS: Final = (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, AttributeError, OSError)
_ENDS: Final = ("finished", "failed")
# For so long the end of a generation that was called off is waited for.
_CALLED_OFF: Final = timedelta(seconds=2)


class Gate(Protocol):
    """Whether somebody may still act for whom they act."""

    async def admit(self, caller: Principal, *, session_id: str) -> timedelta | None:
        """How long it may still take; None without a limit. Raises DelegationEnded when what the caller acts by was
        revoked, has expired or is spent, and ChainLimitReached.
        """


class OpenGate:
    """Admits everybody: for callers that are never delegated."""

    async def admit(self, caller: Principal, *, session_id: str) -> timedelta | None:
        del caller, session_id
        return None


@dataclass(frozen=True, slots=True)
class Thinking:
    """An InferencePeer: models, engines, styles, skills, and the gate before all of them."""

    inference: InferencePeer
    memory: MemoryPeer
    policy: PolicyPeer
    clock: Clock
    skills: Skills = field(default_factory=lambda: Skills(None))
    gate: Gate = field(default_factory=OpenGate)

    async def generate(self, caller: Principal, utterance: Utterance) -> AsyncGenerator[Generated, None]:
        left = await self.gate.admit(caller, session_id=utterance.session_id)
        prepared = self._prepared(utterance)
        by_model = thinks_by_model(utterance.agent)
        events = self.inference.generate(caller, prepared) if by_model else self._by_engine(caller, prepared)
        generation = (utterance.generation_id, utterance.session_id)
        async with aclosing(events if left is None else self._within(caller, generation, events, left)) as limited:
            async for event in limited:
                yield event

    async def attach(self, caller: Principal, generation_id: str, *, after: int) -> AsyncGenerator[Generated, None]:
        """An engine's generation lives as long as its call: who attaches to it is told it is gone, and asks anew.

        Whose time is over, or was taken, leaves no call behind.
        """
        session_id = calls.session_id()
        try:
            left = await self.gate.admit(caller, session_id=session_id)
        except (DelegationEnded, ChainLimitReached):
            await self.cancel(caller, generation_id)
            raise
        events = self.inference.attach(caller, generation_id, after=after)
        generation = (generation_id, session_id)
        async with aclosing(events if left is None else self._within(caller, generation, events, left)) as limited:
            async for event in limited:
                yield event

    async def cancel(self, caller: Principal, generation_id: str) -> None:
        """A credential that has ended still calls off what was begun with it."""
        await self.inference.cancel(replace(caller, expires_at=None), generation_id)

    async def embed(self, caller: Principal, texts: Sequence[str]) -> list[Sequence[float]]:
        return await self.inference.embed(caller, texts)

    async def context_tokens(self, caller: Principal, model: str) -> int:
        return await self.inference.context_tokens(caller, model)

    async def _within(
        self, caller: Principal, generation: tuple[str, str], events: AsyncGenerator[Generated, None], left: timedelta
    ) -> AsyncGenerator[Generated, None]:
        """The events of a generation that come in time. When its caller's time is over it is called off, and its end
        says why, and what it spent. Raises why when that end does not come.
        """
        ends = self.clock.monotonic() + left
        refusal: MeshError | None = None
        coming = asyncio.ensure_future(anext(events, None))
        try:
            while True:
                done, _ = await asyncio.wait({coming}, timeout=max((ends - self.clock.monotonic()).total_seconds(), 0))
                if done:
                    event = coming.result()
                    if event is None:
                        return
                    if refusal is None or event.WhichOneof("event") in _ENDS:
                        yield event if refusal is None else _called_off(event, refusal)
                    coming = asyncio.ensure_future(anext(events, None))
                elif refusal is None:
                    refusal = await self._refusal(caller, generation)
                    ends = self.clock.monotonic() + _CALLED_OFF
                else:
                    raise refusal
        finally:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
            await events.aclose()

    async def _refusal(self, caller: Principal, generation: tuple[str, str]) -> MeshError:
        """Calls a generation off; what the gate says of a caller whose time is over."""
        generation_id, session_id = generation
        await self.cancel(caller, generation_id)
        try:
            await self.gate.admit(caller, session_id=session_id)
        except MeshError as error:
            return error
        return DelegationEnded("its time is over", delegation_id="", state="EXPIRED")

    def _prepared(self, utterance: Utterance) -> Utterance:
        """The prompt with the agent's style and skills in its system message."""
        asked = utterance.lines[-1].text if utterance.lines else ""
        added = [styles.directive(utterance.agent), self.skills.directive(utterance.agent, asked)]
        told = "\n\n".join(part for part in added if part)
        return replace(utterance, lines=_with_system(utterance.lines, told)) if told else utterance

    async def _by_engine(self, caller: Principal, utterance: Utterance) -> AsyncGenerator[Generated, None]:
        """An engine's answer is held to its end, so that policy and the schema judge all of it before any is shown."""
        agent, began = utterance.agent, self.clock.monotonic()
        reference = f"{agent.name}@{agent.version}"
        started = generation_pb2.GenerationStarted(provider="engine", model=agent.engine)
        events: list[Generated] = [Generated(started=started)]
        with tracer.start_as_current_span("agent.engine", attributes={"agent": reference, "engine": agent.engine}):
            try:
                said, last = await self._thought(caller, utterance, events)
                events += said
            except MeshError as error:
                log.warning("engine.failed", agent=reference, engine=agent.engine, reason=error.reason_name)
                last = Generated(failed=generation_pb2.GenerationFailed(failure=error.failure(), attempts=1))
        if last.HasField("finished"):
            last.finished.time_to_first_token.FromTimedelta(self.clock.monotonic() - began)
            last.finished.cost.provider = last.finished.cost.provider or "engine"
            last.finished.cost.model = last.finished.cost.model or agent.engine
        for sequence, event in enumerate((*events, last), start=1):
            event.generation_id, event.sequence = utterance.generation_id, sequence
            event.time.FromDatetime(self.clock.now())
            yield event

    async def _thought(
        self, caller: Principal, utterance: Utterance, verdicts: list[Generated]
    ) -> tuple[list[Generated], Generated]:
        """What is to be shown, and the last event. Verdicts are kept even when what follows fails."""
        asked = utterance.lines[-1].text if utterance.lines else ""
        judged = await self._judge(caller, utterance, asked, PROMPT)
        verdicts += judged.verdicts
        lines = (*utterance.lines[:-1], Line("user", judged.text))
        text, last = await self._answer(caller, utterance, lines)
        if fault := output_fault(utterance.agent, text):
            repair = Line("user", f"{judged.text}\n\nThe answer did not fit ({fault}). Answer with JSON that fits.")
            text, last = await self._answer(caller, utterance, (*lines[:-1], repair))
            if fault := output_fault(utterance.agent, text):
                raise OutputInvalid(f"the output does not fit: {fault}", path=fault.partition(": ")[0])
        released = await self._judge(caller, utterance, text, OUTPUT)
        verdicts += released.verdicts
        produced = generation_pb2.TextProduced(text=released.text, token_count=len(released.text.split()))
        return [Generated(text=produced)] if released.text else [], last

    async def _judge(self, caller: Principal, utterance: Utterance, text: str, target: str) -> Judged:
        if not text.strip():
            return Judged(text)
        return await self.policy.judge(
            caller,
            text,
            target=target,
            agent=f"{utterance.agent.name}@{utterance.agent.version}",
            bundles=utterance.agent.monitors,
            session_id=utterance.session_id,
            override_token=utterance.override_token,
        )

    async def _answer(self, caller: Principal, utterance: Utterance, lines: Sequence[Line]) -> tuple[str, Generated]:
        """All an engine says, and its last event. Raises what it failed with, and EngineFailed for its own faults."""
        agent = utterance.agent

        async def recall(query: str) -> tuple[Known, ...]:
            found = await self.memory.recall(caller, session_id=utterance.session_id, agent=agent.name, query=query)
            if found.degraded:
                raise Unavailable("memory does not answer", dependency="memory")
            return found.known

        question = Question(
            agent=f"{agent.name}@{agent.version}",
            session_id=utterance.session_id,
            lines=tuple(lines),
            recall=recall,
            style=styles.traits(agent),
        )
        said: list[str] = []
        last = Generated(finished=generation_pb2.GenerationFinished(finish_reason=generation_pb2.FINISH_REASON_STOP))
        try:
            async with aclosing(engine_of(agent).generate(question)) as events:
                async for event in events:
                    if event.HasField("text"):
                        said.append(event.text.text)
                    elif event.HasField("failed"):
                        raise from_failure(event.failed.failure)
                    elif event.HasField("finished"):
                        last = event
        except _FAULTS as error:
            why = f"the engine {agent.engine} failed: {type(error).__name__}: {error}"
            raise EngineFailed(why[:500], engine=agent.engine) from error
        return "".join(said), _counted(last, "".join(said), lines)


def _called_off(last: Generated, refusal: MeshError) -> Generated:
    """The end of a generation that was called off, with what it spent."""
    ended = last.finished if last.HasField("finished") else last.failed
    failed = generation_pb2.GenerationFailed(
        failure=refusal.failure(), usage=ended.usage, cost=ended.cost, monitors=ended.monitors
    )
    made = Generated(generation_id=last.generation_id, sequence=last.sequence, failed=failed)
    made.time.CopyFrom(last.time)
    return made


def _counted(last: Generated, text: str, lines: Sequence[Line]) -> Generated:
    """An engine that does not say what it read and wrote is counted by words."""
    if not last.finished.HasField("usage"):
        read = sum(len(line.text.split()) for line in lines)
        usage = usage_pb2.Usage(input_tokens=read, output_tokens=len(text.split()), estimated=True)
        last.finished.usage.CopyFrom(usage)
    return last


def _with_system(lines: tuple[Line, ...], told: str) -> tuple[Line, ...]:
    if lines and lines[0].role == "system":
        return (replace(lines[0], text=f"{lines[0].text}\n\n{told}"), *lines[1:])
    return (Line("system", told), *lines)
