"""What a session's turns ask of others while they are run again, answered from the log: models, memory, tools."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from agentnet.common.v1 import usage_pb2
from agentnet.inference.v1 import generation_pb2, message_pb2
from agentnet.orchestrator.v1 import agent_pb2, event_pb2, input_pb2, progress_pb2, session_pb2, turn_pb2
from services.orchestrator import convergence, prompts
from services.orchestrator.peers import ToolAnswer, ToolShown, TurnMemory, Utterance
from services.orchestrator.prompts import Brief, Known, Line, Prompt, Reduction
from services.orchestrator.replays.cassette import Cassette, writer
from services.orchestrator.speech import Call
from services.orchestrator.state import SessionState
from services.orchestrator.toolwork import ToolWork, answered
from shared.errors import FailedPrecondition, Reason
from shared.identity import Principal

# What the log does not show was not made shorter, whatever the limits were.
_UNLIMITED: Final = sys.maxsize

Event = event_pb2.SessionEvent
Generated = generation_pb2.GenerationEvent


@dataclass(frozen=True, slots=True)
class ReplayMemory:
    """What an agent was given to know, by reference: the log keeps no contents of memories."""

    cassette: Cassette

    async def recall(self, caller: Principal, *, session_id: str, agent: str, query: str) -> TurnMemory:
        starts = [one for one in _starts(self.cassette) if one.agent.partition("@")[0] == agent]
        asked = [one for one in starts if one.prompt.startswith(query)] or starts
        if not asked:
            return TurnMemory()
        context = asked[0].context
        known = [Known(one.id, "", one.score) for one in context.semantic_refs]
        known += [Known(one.id, "", one.score, episodic=True) for one in context.episodic_refs]
        return TurnMemory(tuple(known))


@dataclass(frozen=True, slots=True)
class ReplayPrompts:
    """Prompts as they were. Where nothing from memory is in one it is made again, of the log alone; else its text, and
    whether it was made shorter, are the log's.
    """

    cassette: Cassette

    def __call__(self, state: SessionState, brief: Brief) -> Prompt:
        part = (brief.round, brief.part.agent, brief.part.phase)
        started = next((one for one in _starts(self.cassette) if (one.round, one.agent, one.phase) == part), None)
        reduced = self._reduced(started.turn_id) if started else None
        limit = reduced.limit if reduced else _UNLIMITED
        made = prompts.prompt(state, replace(brief, limit_tokens=limit, memory_tokens=_UNLIMITED))
        if started is None or not brief.known:
            return made
        lines = tuple(Line(message.role, message.text) for message in started.messages)
        return replace(made, lines=lines or made.lines, reduced=reduced)

    def _reduced(self, turn_id: str) -> Reduction | None:
        """How the next try of a turn was made shorter; None: it was not."""
        mine = False
        for event in self.cassette.log[self.cassette.position :]:
            if event.HasField("turn_started") and event.turn_started.turn_id == turn_id:
                mine = True
            elif mine:
                found = event.prompt_reduced
                if found.turn_id != turn_id:
                    return None
                return Reduction(found.tokens_before, found.tokens_after, found.limit_tokens, tuple(found.parts))
        return None


@dataclass(frozen=True, slots=True)
class ReplayTools:
    """What calls came to, whether tools answered or the log of a fork's origin."""

    cassette: Cassette

    async def describe(self, caller: Principal, names: Sequence[str]) -> tuple[message_pb2.ToolDefinition, ...]:
        return tuple(message_pb2.ToolDefinition(name=name) for name in names)

    async def invoke(
        self, caller: Principal, call: Call, *, agent: str, session_id: str, turn_id: str, override_token: str
    ) -> ToolAnswer:
        return answered(await self._finished(turn_id, call))

    async def stream(
        self, caller: Principal, call: Call, *, agent: str, session_id: str, turn_id: str, override_token: str = ""
    ) -> AsyncGenerator[ToolShown | ToolAnswer, None]:
        while True:
            logged = await self.cassette.until(lambda event: writer(event) == call.request_id)
            if logged.HasField("tool_finished"):
                yield answered(logged.tool_finished)
                return
            if logged.HasField("input_requested"):
                raise _held(logged.input_requested.input)
            place, shown = self.cassette.position, logged.tool_progressed
            yield ToolShown(shown.kind, shown.text, shown.invocation_id)
            while self.cassette.position == place:
                await self.cassette.moved()

    async def find(
        self, tenant: str, session: session_pb2.Session, turn_id: str, call: Call, *, place: int
    ) -> event_pb2.ToolFinished | None:
        return await self._finished(turn_id, call)

    async def _finished(self, turn_id: str, call: Call) -> event_pb2.ToolFinished:
        """The end of the call, when the log has come to it."""
        logged = await self.cassette.until(
            lambda event: (event.tool_finished.turn_id, writer(event)) == (turn_id, call.request_id)
        )
        return logged.tool_finished


@dataclass(frozen=True, slots=True)
class ReplayLeave:
    """What people saw of arguments is in their question; nobody needs a token, for nothing is done."""

    cassette: Cassette

    async def shown(self, caller: Principal, arguments: str, *, agent: str, session_id: str) -> str:
        logged = self.cassette.following
        return logged.input_requested.input.arguments if logged else ""

    async def decide(self, person: Principal, asked: input_pb2.HumanInput, *, approved: bool, reason: str) -> str:
        """Answers are signals of the log."""
        raise self.cassette.stop()

    async def token(self, caller: Principal, override_id: str) -> str:
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayToolWork(ToolWork):
    """Offers tools to whoever was offered some."""

    cassette: Cassette

    async def offered(self, caller: Principal, agent: agent_pb2.Agent) -> tuple[message_pb2.ToolDefinition, ...]:
        name = f"{agent.name}@{agent.version}"
        started = next((one for one in _starts(self.cassette) if one.agent == name), None)
        return await self.tools.describe(caller, ["recorded"]) if started and started.max_iterations else ()


@dataclass(frozen=True, slots=True)
class ReplayMeasuring:
    """Measures rounds anew; what needs vectors scores as it did, since they are not in the log."""

    cassette: Cassette

    async def judged(self, caller: Principal, state: SessionState, number: int) -> event_pb2.RoundFinished:
        logged = self.cassette.following
        scores = logged.round_finished.scores if logged else ()
        told = {score.measure: score for score in scores if convergence.measure(score.measure).by_meaning}
        return convergence.judged(state, number, told=told)


@dataclass(frozen=True, slots=True)
class ReplayInference:
    """Says what was said, event by event, each when the log has come to it."""

    cassette: Cassette

    async def generate(self, caller: Principal, utterance: Utterance) -> AsyncGenerator[Generated, None]:
        async for event in self._said(utterance.generation_id, 0):
            yield event

    async def attach(self, caller: Principal, generation_id: str, *, after: int) -> AsyncGenerator[Generated, None]:
        async for event in self._said(generation_id, after):
            yield event

    async def cancel(self, caller: Principal, generation_id: str) -> None:
        return None

    async def embed(self, caller: Principal, texts: Sequence[str]) -> list[Sequence[float]]:
        """Vectors are not in the log: see ReplayMeasuring."""
        raise self.cassette.stop()

    async def context_tokens(self, caller: Principal, model: str) -> int:
        """The log shows which prompts were too long: see ReplayPrompts."""
        return 0

    async def _said(self, generation_id: str, heard: int) -> AsyncGenerator[Generated, None]:
        turn_id = generation_id.partition("-")[0]
        while True:
            logged = await self.cassette.until(lambda event: writer(event) == turn_id)
            place = self.cassette.position
            for event in _spoken(self.cassette, logged, turn_id, heard):
                heard = event.sequence
                yield event
                if event.HasField("finished") or event.HasField("failed"):
                    return
            while self.cassette.position == place:
                await self.cassette.moved()


def _held(asked: input_pb2.HumanInput) -> FailedPrecondition:
    """What tools said of a call before people were asked about it."""
    rules, bundles = ", ".join(asked.rules), ", ".join(asked.bundles)
    reason = Reason.ERROR_REASON_CALL_APPROVAL_REQUIRED
    return FailedPrecondition("the call waits for approval", reason=reason, rules=rules, bundles=bundles)


def _starts(cassette: Cassette) -> Iterator[event_pb2.TurnStarted]:
    """The tries that are still to start, in order."""
    return (event.turn_started for event in cassette.log[cassette.position :] if event.HasField("turn_started"))


def _spoken(cassette: Cassette, logged: Event, turn_id: str, heard: int) -> list[Generated]:
    """What the model's stream must have held for an event of a turn."""
    following = heard + 1
    match logged.WhichOneof("payload"):
        case "tokens_produced":
            tokens = logged.tokens_produced
            text = generation_pb2.TextProduced(text=tokens.text, token_count=tokens.token_count)
            return [Generated(sequence=tokens.generation_sequence, text=text)]
        case "monitor_verdict":
            return [Generated(sequence=logged.monitor_verdict.generation_sequence, verdict=_verdict(logged))]
        case "failed_over":
            return [Generated(sequence=following, failover=_failover(logged))]
        case "progressed":
            return _asked_for_tools(cassette, logged.progressed, following)
        case "turn_finished":
            return [
                Generated(sequence=following, finished=_finished(logged.turn_finished.turn, _before(cassette, turn_id)))
            ]
        case _:
            return [Generated(sequence=following, failed=_failed(logged.turn_interrupted, _before(cassette, turn_id)))]


def _asked_for_tools(cassette: Cassette, progress: progress_pb2.Progressed, following: int) -> list[Generated]:
    """The end of a generation that asked for tools: the calls stand in the log right after it."""
    calls: list[message_pb2.ToolCall] = []
    for event in cassette.log[cassette.position + 1 :]:
        call = event.tool_started.call
        if event.HasField("tool_started") and event.tool_started.turn_id == progress.turn_id:
            calls.append(message_pb2.ToolCall(id=call.call_id, name=call.tool, arguments=call.arguments))
        elif not event.HasField("input_requested"):
            break
    # A log that was cut off right here does not tell which tools were asked for, only that some were.
    calls = calls or [message_pb2.ToolCall()]
    events = [
        Generated(
            sequence=following + place,
            tool_call=generation_pb2.ToolCallProduced(index=place, tool_call=call),
        )
        for place, call in enumerate(calls)
    ]
    finished = generation_pb2.GenerationFinished(usage=progress.iteration_usage, cost=progress.iteration_cost)
    return [*events, Generated(sequence=following + len(calls), finished=finished)]


def _before(cassette: Cassette, turn_id: str) -> progress_pb2.Progressed:
    """What the iterations of a turn's try before its last one spent."""
    for event in reversed(cassette.replayed):
        if event.progressed.turn_id == turn_id:
            return event.progressed
        if event.turn_started.turn_id == turn_id:
            break
    return progress_pb2.Progressed()


def _verdict(logged: Event) -> generation_pb2.PolicyVerdict:
    found = logged.monitor_verdict
    return generation_pb2.PolicyVerdict(
        rule=found.rule,
        bundle=found.bundle,
        action=found.action,
        severity=found.severity,
        span_start=found.span_start,
        span_end=found.span_end,
        target=found.target,
    )


def _failover(logged: Event) -> generation_pb2.Failover:
    found = logged.failed_over
    return generation_pb2.Failover(
        from_model=found.from_model, to_model=found.to_model, restarted=found.restarted, failure=found.failure
    )


def _finished(turn: turn_pb2.Turn, before: progress_pb2.Progressed) -> generation_pb2.GenerationFinished:
    monitors = [
        generation_pb2.MonitorTiming(rule=found.name, status=found.status, elapsed=found.elapsed)
        for found in turn.monitors
    ]
    return generation_pb2.GenerationFinished(
        usage=_usage(turn.usage, before),
        cost=_cost(turn.cost, before),
        monitors=monitors,
        time_to_first_token=turn.time_to_first_token if turn.HasField("time_to_first_token") else None,
    )


def _failed(broken: event_pb2.TurnInterrupted, before: progress_pb2.Progressed) -> generation_pb2.GenerationFailed:
    return generation_pb2.GenerationFailed(
        failure=broken.failure, usage=_usage(broken.usage, before), cost=_cost(broken.cost, before)
    )


def _usage(whole: usage_pb2.Usage, before: progress_pb2.Progressed) -> usage_pb2.Usage:
    usage = usage_pb2.Usage()
    usage.CopyFrom(whole)
    usage.input_tokens -= before.usage.input_tokens
    usage.output_tokens -= before.usage.output_tokens
    return usage


def _cost(whole: usage_pb2.Cost, before: progress_pb2.Progressed) -> usage_pb2.Cost:
    cost = usage_pb2.Cost()
    cost.CopyFrom(whole)
    cost.micros_usd -= before.cost_micros_usd
    return cost
