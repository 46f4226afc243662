"""The tools of a turn: what it may call, calls put in the log before they are made, effects that happen once.

The key of an effect is derived from the turn, the tool, its arguments and how often that call came before in the try.
It stands in the log before the call; whoever takes the turn over asks again under the same key, and tools answers with
what was done. A call that a person must answer or approve waits in the log, and nobody needs to run meanwhile.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import count
from typing import Any, Final

from google.protobuf import struct_pb2
from grpc import StatusCode

from agentnet.inference.v1 import generation_pb2, message_pb2
from agentnet.orchestrator.v1 import agent_pb2, event_pb2, input_pb2, progress_pb2, session_pb2, turn_pb2
from services.orchestrator import holds
from services.orchestrator.errors import EffectsOff
from services.orchestrator.holds import Holds
from services.orchestrator.peers import Recorded, ToolAnswer, ToolsPeer
from services.orchestrator.record import SessionLog
from services.orchestrator.speech import Call, Speaking
from services.orchestrator.tool_output import ToolOutput
from shared.clock import Clock
from shared.errors import InvalidArgument, MeshError, NotFound, PermissionDenied, Reason, Unavailable, from_failure
from shared.identity import Principal
from shared.log import log
from shared.telemetry import meter, tracer

ASK_HUMAN: Final = "ask_human"
DEFAULT_ITERATIONS: Final = 8
_ANY: Final = "*"
_RESULT_CHARACTERS: Final = 16_384
_WHOLE: Final = "whole_result."
_ARGUMENT_CHARACTERS: Final = 65_536
_PAUSES: Final = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0)
# A function may run for ten minutes.
_ASKED_WHILE_RUNNING: Final = 80
# A model may make names up without end.
_NOT_OFFERED: Final = "not offered"
_calls = meter.create_counter("turn_tool_calls", description="tool calls of turns, by tool and outcome")

Event = event_pb2.SessionEvent


@dataclass(frozen=True, slots=True)
class ToolWork:
    """Runs the tool calls of all sessions of this replica."""

    tools: ToolsPeer
    recorded: Recorded
    clock: Clock
    holds: Holds
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def offered(self, caller: Principal, agent: agent_pb2.Agent) -> tuple[message_pb2.ToolDefinition, ...]:
        """The tools an agent's model is told of. While tools is away it works without them."""
        wanted = dict(offers(agent))
        own = (_ask_human(),) if wanted.pop(ASK_HUMAN, "") else ()
        if not wanted:
            return own
        try:
            return (*own, *await self.tools.describe(caller, list(wanted.values())))
        except MeshError as error:
            log.warning("tools.away", reason=error.reason_name)
            return own

    async def answer(self, record: SessionLog, turn_id: str, caller: Principal, *, agent: agent_pb2.Agent) -> bool:
        """Makes the open calls of a turn, all at once. False when some still wait for a person. Raises LeaseLost."""
        speaking = record.state.speaking[turn_id]
        ready = [call for call in speaking.open if not call.waits]
        work = [asyncio.create_task(self._make(record, speaking, call, caller, agent)) for call in ready]
        try:
            await asyncio.gather(*work)
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
        return not record.state.speaking[turn_id].open

    async def _make(
        self, record: SessionLog, speaking: Speaking, call: Call, caller: Principal, agent: agent_pb2.Agent
    ) -> None:
        began = self.clock.now()
        labels = {"tool": call.tool, "agent": speaking.agent, "session_id": record.lease.session_id}
        counted = call.tool if call.tool in offers(agent) else _NOT_OFFERED
        error: MeshError | None = None
        answer = ToolAnswer("")
        with tracer.start_as_current_span("tool.invoke", attributes=labels) as span:
            try:
                answer = await self._outcome(record, speaking, call, caller, agent)
            except MeshError as refused:
                if holds.held(refused):
                    _calls.add(1, {"tool": counted, "outcome": "held"})
                    await record.commit([await self._held(record, speaking, call, caller, refused)])
                    return
                error = refused
                answer = ToolAnswer(f"{refused.reason_name}: {refused.message}")
            span.set_attribute("failed", error is not None)
        _calls.add(1, {"tool": counted, "outcome": error.reason_name if error else "ok"})
        finished = _finished(speaking, call, answer, error, took=self.clock.now() - began)
        await record.commit([Event(tool_finished=finished, actor="mesh")])

    async def _held(
        self, record: SessionLog, speaking: Speaking, call: Call, caller: Principal, refused: MeshError
    ) -> Event:
        log.info("tool.held", tool=call.tool, rules=refused.facts.get("rules", ""), turn_id=speaking.turn_id)
        session_id, now = record.lease.session_id, self.clock.now()
        return await self.holds.call(caller, speaking, call, refused.facts, session_id=session_id, now=now)

    async def _outcome(
        self, record: SessionLog, speaking: Speaking, call: Call, caller: Principal, agent: agent_pb2.Agent
    ) -> ToolAnswer:
        """What a call comes to. Raises why it came to nothing."""
        if call.tool not in offers(agent):
            raise NotFound(f"there is no tool {call.tool}", reason=Reason.ERROR_REASON_TOOL_NOT_FOUND, tool=call.tool)
        if _object(call.arguments) is None:
            raise InvalidArgument(
                "the arguments are not a JSON object", reason=Reason.ERROR_REASON_TOOL_ARGUMENTS_INVALID
            )
        if record.state.session.effects_off:
            return await self._without_effect(record, speaking, call)
        if call.tool == ASK_HUMAN:
            return ToolAnswer(call.answer.answer if call.answer else "")
        if call.answer is not None and not call.answer.approved:
            if call.rules:
                raise holds.refusal(call.answer, call.rules)
            said = f": {call.answer.answer}" if call.answer.answer else ""
            raise PermissionDenied(f"a person refused the call{said}", reason=Reason.ERROR_REASON_TOOL_NOT_ALLOWED)
        rule = agent.stop_tools_when.get(call.tool) or agent.stop_tools_when.get(_ANY, "")
        return await self._invoke(record, speaking, replace(call, tool=offers(agent)[call.tool]), caller, rule)

    async def _without_effect(self, record: SessionLog, speaking: Speaking, call: Call) -> ToolAnswer:
        """What the session this one comes from was answered. Raises EffectsOff when it never made the call."""
        same = [one.request_id for one in speaking.calls if (one.tool, one.digest) == (call.tool, call.digest)]
        place = same.index(call.request_id)
        found = await self.recorded.find(record.lease.tenant, record.state.session, speaking.turn_id, call, place=place)
        if found is None:
            raise EffectsOff(
                f"{call.tool} was not called: tools do not act on the world in this session", tool=call.tool
            )
        return answered(found)

    async def _streamed(
        self, record: SessionLog, speaking: Speaking, call: Call, caller: Principal, rule: str
    ) -> ToolAnswer:
        """The answer, or what was shown when the agent's rule has seen enough; all that is shown goes to the log."""
        heard = ToolOutput(rule)
        token = await self.holds.leave.token(caller, call.answer.override_id if call.answer else "")
        parts = self.tools.stream(
            caller, call, agent=speaking.agent, session_id=record.lease.session_id, turn_id=speaking.turn_id,
            override_token=token,
        )  # fmt: skip
        async with aclosing(parts):
            async for part in parts:
                if isinstance(part, ToolAnswer):
                    return part
                if events := heard.take(speaking, call, part):
                    await record.tell(events)
                if heard.enough():
                    return heard.stopped()
        raise Unavailable("the tool's stream ended without its end", dependency="tools")

    async def _invoke(
        self, record: SessionLog, speaking: Speaking, call: Call, caller: Principal, rule: str
    ) -> ToolAnswer:
        """Asks again, under the same key, while tools is away or the call, asked for before, still runs."""
        for number in count():
            try:
                return await self._streamed(record, speaking, call, caller, rule)
            except MeshError as error:
                running = error.reason == Reason.ERROR_REASON_TOOL_CALL_IN_PROGRESS
                away = error.code is StatusCode.UNAVAILABLE and error.reason != Reason.ERROR_REASON_TOOL_CIRCUIT_OPEN
                if number >= (_ASKED_WHILE_RUNNING if running else len(_PAUSES) if away else 0):
                    raise
            await self.sleep(_PAUSES[min(number, len(_PAUSES) - 1)])
        raise AssertionError  # pragma: no cover - it counts without end


def answered(finished: event_pb2.ToolFinished) -> ToolAnswer:
    """The answer that an event tells of. Raises the failure it tells of."""
    if finished.HasField("failure"):
        raise from_failure(finished.failure)
    # A result that was cut is cut again.
    cut = "\N{HORIZONTAL ELLIPSIS}" if finished.outcome.truncated else ""
    came = finished.outcome
    return ToolAnswer(came.result + cut, finished.invocation_id, came.replayed, came.stopped, tuple(came.artefacts))


def offers(agent: agent_pb2.Agent) -> dict[str, str]:
    """The tools and functions an agent may call: by the name its model knows, as the agent has them, versions kept."""
    offered: dict[str, str] = {}
    for own in (*agent.tools, *agent.functions):
        offered.setdefault(own.partition("@")[0], own)
    return offered


def iterations(session: session_pb2.Session) -> int:
    """How often a turn of the session that calls tools may call the model."""
    return session.limits.max_iterations or DEFAULT_ITERATIONS


def asked_for(
    record: SessionLog,
    speaking: Speaking,
    calls: Mapping[int, message_pb2.ToolCall],
    finished: generation_pb2.GenerationFinished,
    *,
    now: datetime,
) -> list[Event]:
    """The end of an iteration whose model asked for tools: progress, then every call before any is made."""
    made = _made(record, speaking, [calls[place] for place in sorted(calls)])
    actor = f"agent:{speaking.agent}"
    events = [Event(progressed=progress(record, speaking, finished))]
    for call in made:
        events.append(
            Event(tool_started=event_pb2.ToolStarted(turn_id=speaking.turn_id, tool=call.tool, call=call), actor=actor)
        )
        if asked := _question(record, speaking, call, now):
            events.append(
                Event(
                    input_requested=event_pb2.InputRequested(input_id=asked.id, question=asked.question, input=asked),
                    actor=actor,
                )
            )
    return events


def progress(
    record: SessionLog, speaking: Speaking, finished: generation_pb2.GenerationFinished
) -> progress_pb2.Progressed:
    """How far a turn is after an iteration."""
    made = progress_pb2.Progressed(
        turn_id=speaking.turn_id,
        iteration=speaking.iteration,
        max_iterations=speaking.max_iterations,
        round=speaking.round,
        max_rounds=record.state.session.max_rounds,
        cost_micros_usd=speaking.cost_micros_usd + finished.cost.micros_usd,
        iteration_usage=finished.usage,
        iteration_cost=finished.cost,
    )
    made.usage.input_tokens = speaking.input_tokens + finished.usage.input_tokens
    made.usage.output_tokens = speaking.output_tokens + finished.usage.output_tokens
    return made


def uses(speaking: Speaking) -> list[turn_pb2.ToolUse]:
    """The calls of a turn as its record keeps them."""
    return [
        turn_pb2.ToolUse(tool=call.tool, request_id=call.request_id, arguments_digest=call.digest, failed=call.failed)
        for call in speaking.calls
    ]


def _made(record: SessionLog, speaking: Speaking, calls: Sequence[message_pb2.ToolCall]) -> list[turn_pb2.ToolCallMade]:
    seen = Counter((call.tool, call.digest) for call in speaking.calls)
    made: list[turn_pb2.ToolCallMade] = []
    for place, call in enumerate(calls):
        arguments = call.arguments or "{}"
        digest = hashlib.sha256(_canonical(arguments).encode()).hexdigest()
        seen[call.name, digest] += 1
        effect = "\x00".join(
            (record.lease.session_id, speaking.turn_id, call.name, digest, str(seen[call.name, digest]))
        )
        made.append(
            turn_pb2.ToolCallMade(
                call_id=call.id or f"call_{speaking.iteration}_{place}",
                tool=call.name,
                request_id=f"eff_{hashlib.blake2b(effect.encode(), digest_size=20).hexdigest()}",
                # Cut, it is no JSON any more and is refused as such.
                arguments=arguments[:_ARGUMENT_CHARACTERS],
                arguments_digest=digest,
                iteration=speaking.iteration,
            )
        )
    return made


def _question(
    record: SessionLog, speaking: Speaking, call: turn_pb2.ToolCallMade, now: datetime
) -> input_pb2.HumanInput | None:
    """What a person is asked before a call; None: nothing."""
    arguments = _object(call.arguments)
    if arguments is None or record.state.session.effects_off:
        return None
    gated = record.state.session.require_approval
    if call.tool == ASK_HUMAN:
        kind, question = input_pb2.INPUT_KIND_QUESTION, str(arguments.get("question", ""))
    elif call.tool in gated or _ANY in gated:
        kind = input_pb2.INPUT_KIND_APPROVAL
        question = f"May {speaking.agent} call {call.tool} with {call.arguments[:1000]}?"
    else:
        return None
    asked = input_pb2.HumanInput(
        id=call.request_id.replace("eff_", "inp_"),
        session_id=record.lease.session_id,
        kind=kind,
        question=question,
        agent=speaking.agent,
        turn_id=speaking.turn_id,
        tool=call.tool,
        arguments=call.arguments,
        request_id=call.request_id,
    )
    asked.request_time.FromDatetime(now)
    return asked


def _finished(
    speaking: Speaking, call: Call, answer: ToolAnswer, error: MeshError | None, *, took: timedelta
) -> event_pb2.ToolFinished:
    # Postgres keeps no U+0000.
    result = answer.result.replace("\x00", "\N{REPLACEMENT CHARACTER}")
    outcome = turn_pb2.ToolOutcome(
        result=_cut(result, answer), truncated=len(result) > _RESULT_CHARACTERS, replayed=answer.replayed,
        stopped=answer.stopped, artefacts=answer.artefacts,
    )  # fmt: skip
    outcome.duration.FromTimedelta(took)
    return event_pb2.ToolFinished(
        turn_id=speaking.turn_id,
        invocation_id=answer.invocation_id,
        failure=error.failure() if error else None,
        call=turn_pb2.ToolCallMade(
            call_id=call.call_id,
            tool=call.tool,
            request_id=call.request_id,
            arguments_digest=call.digest,
            iteration=call.iteration,
        ),
        outcome=outcome,
    )


def _cut(result: str, answer: ToolAnswer) -> str:
    """As much of a result as an agent is given, and where the whole is."""
    whole = next((one for one in answer.artefacts if one.name.startswith(_WHOLE)), None)
    if len(result) <= _RESULT_CHARACTERS or whole is None:
        return result[:_RESULT_CHARACTERS]
    note = f"\n(Cut here. All {whole.size} bytes are the artefact {whole.name} of invocation {whole.invocation_id}.)"
    return result[: _RESULT_CHARACTERS - len(note)] + note


def _object(arguments: str) -> dict[str, Any] | None:
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _canonical(arguments: str) -> str:
    value = _object(arguments)
    return arguments if value is None else json.dumps(value, sort_keys=True, separators=(",", ":"))


def _ask_human() -> message_pb2.ToolDefinition:
    schema = struct_pb2.Struct()
    schema.update({"type": "object", "properties": {"question": {"type": "string"}}, "required": ["question"]})
    return message_pb2.ToolDefinition(
        name=ASK_HUMAN, description="Asks a person a question and waits for the answer.", input_schema=schema
    )
