"""What a turn talks to, scripted: inference, tools and memory that answer, refuse, break and forget as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import struct_pb2

from agentnet.common.v1 import usage_pb2
from agentnet.inference.v1 import generation_pb2, message_pb2
from agentnet.orchestrator.v1 import turn_pb2
from agentnet.tools.v1 import tool_pb2
from services.orchestrator.peers import ToolAnswer, ToolShown, TurnMemory, Utterance
from services.orchestrator.prompts import Known
from services.orchestrator.speech import Call
from shared.errors import Aborted, Cancelled, FailedPrecondition, MeshError, NotFound, Reason
from shared.identity import Principal
from tests.support.mortal import Killed

Generated = generation_pb2.GenerationEvent


Reply = Callable[[Utterance], str | list[message_pb2.ToolCall]]


@dataclass(slots=True)
class _Generation:
    events: list[Generated]
    called_off: asyncio.Event = field(default_factory=asyncio.Event)

    def ending(self, sequence: int) -> Generated:
        """Its last event when it was called off there: half of what the whole would have cost."""
        ended = Cancelled("called off", reason=Reason.ERROR_REASON_GENERATION_CANCELLED)
        usage, cost = usage_pb2.Usage(input_tokens=10, output_tokens=1), usage_pb2.Cost(micros_usd=3)
        failed = generation_pb2.GenerationFailed(failure=ended.failure(), usage=usage, cost=cost)
        return Generated(sequence=sequence, failed=failed)


@dataclass(slots=True)
class ScriptedInference:
    """Owns generations as the real service does: started once an id, readable by any number from anywhere.

    A reply is streamed word by word. `refusals` meet the next calls to start. `held_at` stops every stream before that
    sequence until `release`. `interludes` come after each
    reply's first word, `epilogue` before its end. `breaks` cuts the connection once, before a sequence; without an
    error it just ends. `forgotten` loses everything.
    """

    reply: Reply = lambda utterance: f"{utterance.agent.name} has one idea about it."
    refusals: list[MeshError] = field(default_factory=list)
    failures: list[MeshError | None] = field(default_factory=list)
    breaks: dict[int, MeshError | None] = field(default_factory=dict)
    interludes: list[Generated] = field(default_factory=list)
    held_at: int | None = None
    started: list[Utterance] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    embed_refusals: list[MeshError] = field(default_factory=list)
    embedded: list[list[str]] = field(default_factory=list)
    meaning: Callable[[str], Sequence[float]] = lambda text: (1.0, 0.0)
    window: int = 0
    monitors: list[generation_pb2.MonitorTiming] = field(default_factory=list)
    epilogue: list[Generated] = field(default_factory=list)
    _generations: dict[str, _Generation] = field(default_factory=dict)
    _released: asyncio.Event = field(default_factory=asyncio.Event)

    async def generate(self, caller: Principal, utterance: Utterance) -> AsyncGenerator[Generated, None]:
        if utterance.generation_id not in self._generations:
            if self.refusals:
                raise self.refusals.pop(0)
            self.started.append(utterance)
            failure = self.failures.pop(0) if self.failures else None
            self._generations[utterance.generation_id] = _Generation(
                _events(self.reply(utterance), failure, self.interludes, self.monitors, self.epilogue)
            )
        async with aclosing(self._read(utterance.generation_id, 0)) as events:
            async for event in events:
                yield event

    async def attach(self, caller: Principal, generation_id: str, *, after: int) -> AsyncGenerator[Generated, None]:
        if generation_id not in self._generations:
            raise NotFound("no such generation", reason=Reason.ERROR_REASON_GENERATION_NOT_FOUND)
        async with aclosing(self._read(generation_id, after)) as events:
            async for event in events:
                yield event

    async def cancel(self, caller: Principal, generation_id: str) -> None:
        """What was not read yet is not said: who reads hears the end, and what it cost until then."""
        self.cancelled.append(generation_id)
        if generation := self._generations.get(generation_id):
            generation.called_off.set()

    async def embed(self, caller: Principal, texts: Sequence[str]) -> list[Sequence[float]]:
        if self.embed_refusals:
            raise self.embed_refusals.pop(0)
        self.embedded.append(list(texts))
        return [self.meaning(text) for text in texts]

    async def context_tokens(self, caller: Principal, model: str) -> int:
        return self.window

    def release(self) -> None:
        self.held_at = None
        self._released.set()

    def forget(self) -> None:
        """The replica that held the generations died, and its events with it."""
        self._generations.clear()
        self.release()

    async def _read(self, generation_id: str, after: int) -> AsyncGenerator[Generated, None]:
        generation = self._generations[generation_id]
        for event in generation.events[after:]:
            if event.sequence in self.breaks:
                if error := self.breaks.pop(event.sequence):
                    raise error
                return
            if self.held_at is not None and event.sequence >= self.held_at:
                waits = {asyncio.ensure_future(one.wait()) for one in (self._released, generation.called_off)}
                try:
                    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for wait in waits:
                        wait.cancel()
            if generation.called_off.is_set():
                yield generation.ending(event.sequence)
                return
            if generation_id not in self._generations:
                raise Aborted("its owner died", reason=Reason.ERROR_REASON_GENERATION_LOST)
            yield event
            await asyncio.sleep(0)


def _events(
    said: str | list[message_pb2.ToolCall],
    failure: MeshError | None,
    interludes: Sequence[Generated],
    monitors: Sequence[generation_pb2.MonitorTiming] = (),
    epilogue: Sequence[Generated] = (),
) -> list[Generated]:
    asked = [] if isinstance(said, str) else said
    words = said.split(" ") if isinstance(said, str) else ["Looking", "it", "up."]
    parts = [word if place == 0 else f" {word}" for place, word in enumerate(words)]
    events = [Generated(started=generation_pb2.GenerationStarted(provider="scripted", model="scripted"))]
    events += [Generated(text=generation_pb2.TextProduced(text=part, token_count=1)) for part in parts]
    events += [
        Generated(tool_call=generation_pb2.ToolCallProduced(index=place, tool_call=call))
        for place, call in enumerate(asked)
    ]
    events += [Generated.FromString(event.SerializeToString()) for event in epilogue]
    events[2:2] = [Generated.FromString(event.SerializeToString()) for event in interludes]
    usage = usage_pb2.Usage(input_tokens=10, output_tokens=len(parts))
    cost = usage_pb2.Cost(micros_usd=7, provider="scripted", model="scripted")
    if failure:
        failed = generation_pb2.GenerationFailed(failure=failure.failure(), usage=usage, cost=cost)
        events.append(Generated(failed=failed))
    else:
        finished = generation_pb2.GenerationFinished(usage=usage, cost=cost, monitors=monitors)
        events.append(Generated(finished=finished))
    for place, event in enumerate(events, start=1):
        event.sequence = place
    return events


@dataclass(slots=True)
class ScriptedTools:
    """Has each effect once, as the real service does. `refusals` meet calls of a tool; `done` are effects in order.

    `crashes` kills the caller after the effect and before the answer, once for a tool. `held` holds every answer back.
    `rules` of policy hold calls of a tool that come without a token; `tokens` are those that came.
    """

    names: tuple[str, ...] = ("search", "book")
    reply: Callable[[Call], str] = lambda call: f"{call.tool} found it."
    refusals: dict[str, list[MeshError]] = field(default_factory=dict)
    crashes: set[str] = field(default_factory=set)
    done: list[str] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    held: asyncio.Event | None = None
    schemas: dict[str, struct_pb2.Struct] = field(default_factory=dict)
    shows: dict[str, Sequence[ToolShown]] = field(default_factory=dict)
    leaves: dict[str, Sequence[turn_pb2.LeftArtefact]] = field(default_factory=dict)
    rules: dict[str, str] = field(default_factory=dict)
    tokens: list[str] = field(default_factory=list)
    _effects: dict[str, str] = field(default_factory=dict)

    async def describe(self, caller: Principal, names: Sequence[str]) -> tuple[message_pb2.ToolDefinition, ...]:
        known = [name.partition("@")[0] for name in names]
        return tuple(message_pb2.ToolDefinition(name=name) for name in known if name in self.names)

    async def find(self, caller: Principal, reference: str) -> tool_pb2.Tool:
        name, _, version = reference.partition("@")
        if name not in self.names:
            raise NotFound(f"no tool {reference}", reason=Reason.ERROR_REASON_TOOL_NOT_FOUND)
        return tool_pb2.Tool(name=name, version=version or "1.0.0", input_schema=self.schemas.get(name))

    async def invoke(
        self, caller: Principal, call: Call, *, agent: str, session_id: str, turn_id: str, override_token: str = ""
    ) -> ToolAnswer:
        self._judge(call, override_token)
        if self.refusals.get(call.tool):
            raise self.refusals[call.tool].pop(0)
        replayed = call.request_id in self._effects
        if not replayed:
            self.done.append(f"{call.tool} {call.arguments}")
            self._effects[call.request_id] = self.reply(call)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await (self.held.wait() if self.held else asyncio.sleep(0))
        self.at_once -= 1
        if call.tool in self.crashes:
            self.crashes.discard(call.tool)
            raise Killed
        left = tuple(self.leaves.get(call.tool, ()))
        return ToolAnswer(self._effects[call.request_id], f"inv_{len(self._effects)}", replayed, artefacts=left)

    async def stream(
        self, caller: Principal, call: Call, *, override_token: str = "", **given: Any
    ) -> AsyncGenerator[ToolShown | ToolAnswer, None]:
        """`shows` come first; a tool that is not let end has no effect."""
        self._judge(call, override_token)
        for shown in self.shows.get(call.tool, ()):
            yield shown
            await asyncio.sleep(0)
        yield await self.invoke(caller, call, override_token=override_token, **given)

    def _judge(self, call: Call, override_token: str) -> None:
        if call.tool not in self.rules:
            return
        if not override_token:
            raise FailedPrecondition(
                "it waits for approval", reason=Reason.ERROR_REASON_CALL_APPROVAL_REQUIRED,
                rules=self.rules[call.tool], bundles="default@1.0.0", tool=call.tool,
            )  # fmt: skip
        if override_token not in self.tokens:
            self.tokens.append(override_token)


@dataclass(slots=True)
class ScriptedMemory:
    """Knows what it is told, remembers what it is given; `away` is a memory service that does not answer."""

    known: tuple[Known, ...] = ()
    away: bool = False
    asked: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)

    async def recall(self, caller: Principal, *, session_id: str, agent: str, query: str) -> TurnMemory:
        self.asked.append(agent)
        return TurnMemory(degraded=True) if self.away else TurnMemory(self.known)

    async def append(self, tenant: str, turns: Sequence[turn_pb2.Turn]) -> None:
        if not self.away:
            self.kept += [turn.id for turn in turns]
