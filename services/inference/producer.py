"""The task of one generation: from providers through policy into events, paid for whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from agentnet.inference.v1.generation_pb2 import ANSWER_SOURCE_RECORDING
from services.inference import events, structured
from services.inference.breakers import Breakers
from services.inference.counting import TokenCounter
from services.inference.course import Course, Step
from services.inference.enforcement import Guard, blocked, call_blocked, report, stopped_by
from services.inference.errors import PROVIDER_FAULTS, REFUSED, GenerationCancelled, OutputInvalid, ProviderTimeout
from services.inference.generation import Generation
from services.inference.numbers import NumberRules
from services.inference.outages import outage
from services.inference.peers import Cost, CostPeer, Ending, Payer, PolicyPeer
from services.inference.providers.contract import Chunk, ModelCall, Role, ToolCall, Usage, estimate_input, said
from services.inference.route import Target
from services.inference.store import GenerationRecord, GenerationStore
from services.inference.tab import Tab
from services.inference.transcript import Transcript
from services.inference.unbroken import finished, to_its_end
from shared.clock import Clock
from shared.errors import Internal, MeshError
from shared.log import log
from shared.monitors.finished import Status, Tally
from shared.monitors.rules import Target as Judged
from shared.monitors.rules import Verdict
from shared.monitors.stream import Ruling
from shared.risks import Tell, untold
from shared.rpc.deadline import without_deadline
from shared.telemetry import meter, span

_latency = meter.create_histogram("inference_latency_ms", unit="ms", description="of whole generations")
_tokens = meter.create_counter("tokens_consumed_total", description="input and output, by model, provider and tenant")
_failovers = meter.create_counter("inference_failovers_total", description="by the model that failed and the next")


@dataclass(frozen=True, slots=True)
class Answered:
    """What a generation that ended well said, for whoever keeps answers."""

    transcript: Transcript
    target: Target
    attempts: int


async def not_kept(_: Answered | None) -> None:
    """It answers its caller alone."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a generation ended, well or badly."""

    transcript: Transcript
    target: Target
    outcome: str
    failed: bool
    micros_usd: int
    started_at: datetime


@dataclass(slots=True)
class Producer:
    """Produces one generation. Its outcome is always the last event, after every attempt was settled."""

    generation: Generation
    call: ModelCall
    course: Course
    payer: Payer
    tab: Tab | None
    guard: Guard
    cost: CostPeer
    policy: PolicyPeer
    store: GenerationStore
    breakers: Breakers
    counter: TokenCounter
    clock: Clock
    numbers: NumberRules
    judged_before: Callable[[], list[Status]] = list
    prompt_version: str = ""
    tell: Tell = untold
    kept: Callable[[Answered | None], Awaitable[None]] = not_kept
    """Told what it said when it ended well, before its last event."""
    ended: Callable[[Ended], None] = lambda _: None
    _transcript: Transcript = field(default_factory=Transcript)
    _verdicts: list[Verdict] = field(default_factory=list)
    _untold: int = 0
    _attempts: int = 0
    _repaired: bool = False
    _costs: list[Cost] = field(default_factory=list)
    _began: timedelta = timedelta()
    _asked: bool = False
    _facts: dict[str, float] = field(default_factory=dict)
    _outgrown: bool = False
    _served: Target | None = None
    """Who was asked last. The course may have gone on to others, whose breakers let nobody through."""

    async def run(self, prompt_verdicts: Sequence[Verdict], before: Sequence[events.Event]) -> None:
        """To the end. Being cancelled is an outcome too."""
        without_deadline()
        started_at, self._began = self.clock.now(), self.clock.monotonic()
        self._started(prompt_verdicts, before)
        failure: MeshError | None = Internal("the generation failed", generation_id=self.generation.id)
        with span("agent.inference", **self._labels()):
            try:
                await self._produce()
                failure = None
            except asyncio.CancelledError:
                failure = GenerationCancelled("the generation was cancelled", generation_id=self.generation.id)
            except MeshError as error:
                failure = error
            finally:
                await finished(asyncio.ensure_future(self._end(failure, started_at)))

    def _started(self, verdicts: Sequence[Verdict], before: Sequence[events.Event]) -> None:
        target = self.course.target
        self.generation.append(events.started(target, input_tokens=estimate_input(self.call)))
        for event in before:
            self.generation.append(event)
        for verdict in verdicts:
            self._judged(verdict)

    async def _produce(self) -> None:
        self._transcript.begin(self.call, restarted=True)
        while True:
            try:
                await self._attempt(self.course.target)
            except MeshError as failure:
                await self._go_on(failure)
            else:
                return

    async def _attempt(self, target: Target) -> None:
        """One target asked, shown and judged to its end."""
        call, self._served = target.call(self.call), target
        self._attempts += not target.free
        self._weigh(Judged.PROMPT)
        try:
            await self._stream(target, call)
        except PROVIDER_FAULTS as failure:
            if not target.free and await self.breakers.failed(target.provider.name):
                outage(self.tell, self.payer, target.provider.name, failure)
            raise
        if not target.free:
            await self.breakers.succeeded(target.provider.name)
        self._show(await self.guard.end_of_text(answers=not self._transcript.tool_calls), 0)
        self._think(await self.guard.end_of_reasoning(), 0)
        for index, tool in enumerate(self._transcript.tool_calls):
            self._ask(index, tool)
        self._weigh(Judged.OUTPUT, shown=len(self._transcript.shown), asked=len(self._transcript.tool_calls))
        self._check_form(call)

    def _check_form(self, call: ModelCall) -> None:
        if call.response_format is None or self._transcript.tool_calls:
            return
        found = structured.fault(call.response_format, self._transcript.raw)
        if found:
            raise found

    async def _stream(self, target: Target, call: ModelCall) -> None:
        self._asked = True
        try:
            async with (
                asyncio.timeout(call.timeouts.total.total_seconds()),
                aclosing(target.provider.stream(call)) as chunks,
            ):
                async for chunk in chunks:
                    await self._take(chunk)
                    self._weigh(Judged.OUTPUT)
                    if self.tab:
                        await self.tab.cover(self._transcript.counted)
                    if self._transcript.over(call.max_output_tokens):
                        break
        except TimeoutError as error:
            raise ProviderTimeout("the model's time is up", provider=target.provider.name) from error

    def _weigh(self, target: Judged, *, shown: int | None = None, asked: int = 0) -> None:
        """Judges what the generation used, cost and took so far; with `shown` it has ended. Raises PolicyBlocked."""
        if not self.numbers:
            return
        tokens, micros = self.tab.so_far(self._transcript.counted) if self.tab else (self._transcript.counted, 0)
        before = self._transcript.spent()
        facts: dict[str, float] = {
            "tokens": tokens + before.input_tokens + before.output_tokens,
            "cost_micros_usd": micros + sum(cost.micros_usd for cost in self._costs),
            "seconds": (self.clock.monotonic() - self._began).total_seconds(),
            "tool_calls": self.numbers.round["tool_calls"] + asked,
        }
        self._facts = facts if shown is None else facts | {"output_characters": shown}
        told, stops = self.numbers.judge(self._facts, target)
        for verdict in told:
            self._judged(verdict)
        if stops:
            self._outgrown = True
            raise stopped_by(stops, f"the turn's {stops.kind}")

    async def _take(self, chunk: Chunk) -> None:
        self._transcript.take(chunk, self.clock)
        if chunk.reasoning:
            self._think(await self.guard.reasoning(chunk.reasoning), 0 if chunk.text else chunk.token_count)
        if chunk.text:
            self._show(await self.guard.text(chunk.text), chunk.token_count)

    async def _go_on(self, failure: MeshError) -> None:
        """Pays for the attempt that failed and asks the next target. Raises the failure when there is none."""
        source, transcript = self.course.target, self._transcript
        if isinstance(failure, OutputInvalid) and not self._repaired:
            self._repaired = True
            call = structured.repair(self.call, transcript.raw, failure)
            await self._turn_to(source, source, failure, restarted=True, call=call)
            return
        step = await self._admitted(self.course.after(failure, shown=transcript.anything_shown))
        if step is None:
            if isinstance(failure, PROVIDER_FAULTS) and not source.free:
                outage(self.tell, self.payer, source.provider.name, failure)
            raise failure
        await asyncio.sleep(step.wait.total_seconds())
        if step.target is source and isinstance(failure, REFUSED) and not transcript.begun:
            return  # nothing was said or spent: the lease still stands
        goes_on = transcript.begun and step.target.model.continues and not self._formal()
        call = self._continued() if goes_on else self.call
        await self._turn_to(source, step.target, failure, restarted=not goes_on, call=call)

    async def _admitted(self, step: Step | None) -> Step | None:
        """The step, or the first after it whose provider's breaker lets calls through."""
        while step and not step.target.free and not await self.breakers.admits(step.target.provider.name):
            target = self.course.skip()
            step = Step(target) if target else None
        return step

    def _formal(self) -> bool:
        """Whether the output cannot be gone on with in its middle."""
        return bool(self._transcript.tool_calls or self.call.response_format)

    async def _turn_to(
        self, source: Target, to: Target, failure: MeshError, *, restarted: bool, call: ModelCall
    ) -> None:
        await to_its_end(self._settle(Ending.FAILED_OVER, refused=isinstance(failure, REFUSED)))
        if self._transcript.anything_shown or source is not to:
            at = len(self._transcript.shown)
            self.generation.append(events.failover(source, to, restarted=restarted, at=at, failure=failure))
            _failovers.add(1, {"from": source.model.name, "to": to.model.name})
            log.info("generation.failover", generation_id=self.generation.id, from_model=source.model.name,
                     to_model=to.model.name, reason=failure.reason_name)  # fmt: skip
        self.call = call
        self._transcript.begin(call, restarted=restarted)
        if restarted:
            self.guard, self._untold = self.guard.anew(), 0
        attempt_id = _attempt_id(self.payer.generation_id, self._attempts + 1)
        payer = replace(self.payer, generation_id=attempt_id, provider=to.provider.name, model=to.model.name,
                        attempt=self._attempts)  # fmt: skip
        tab = Tab(self.cost, payer, call)
        await tab.open()
        self.tab = tab

    def _continued(self) -> ModelCall:
        """The call that goes on from what the model said so far."""
        left = max(1, self.call.max_output_tokens - self._transcript.counted)
        begun = said(Role.ASSISTANT, self._transcript.raw)
        asked = self.call.messages
        if asked[-1].role is Role.ASSISTANT:  # it was gone on with before
            asked = asked[:-1]
        return replace(self.call, messages=(*asked, begun), max_output_tokens=left)

    def _show(self, ruling: Ruling, token_count: int) -> None:
        for verdict in ruling.verdicts:
            self._judged(verdict)
        self._untold += token_count  # tokens of text held back count in the event that releases it
        if ruling.text:
            self._transcript.show(ruling.text)
            self.generation.append(events.text(ruling.text, token_count=self._untold))
            self._untold = 0
        if ruling.blocked:
            raise blocked(ruling, "the output")

    def _think(self, ruling: Ruling, token_count: int) -> None:
        for verdict in ruling.verdicts:
            self._judged(verdict)
        if ruling.text:
            self._transcript.reasoning_shown = True
            self.generation.append(events.reasoning(ruling.text, token_count=token_count))
        if ruling.blocked:
            raise blocked(ruling, "the reasoning")

    def _ask(self, index: int, tool: ToolCall) -> None:
        ruling = self.guard.arguments(tool.arguments)
        for verdict in ruling.verdicts:
            self._judged(verdict)
        if ruling.blocked:
            raise call_blocked(ruling, tool.name)
        released = replace(tool, arguments=ruling.text)
        self._transcript.tools_shown.append(released)
        self.generation.append(events.tool_call(index, released))

    def _judged(self, verdict: Verdict) -> None:
        self._verdicts.append(verdict)
        self.generation.append(events.verdict(verdict))

    async def _settle(self, outcome: Ending, *, refused: bool = False) -> None:
        """Pays for the attempt that is over, once. One that was refused, or is a recording, costs nothing."""
        free = refused or self.tab is None or not self._asked
        usage, tab, self.tab, self._asked = await self._used(free=free), self.tab, None, False
        self._transcript.end(usage)
        paid = Usage(0, 0) if self._transcript.recorded else usage
        if tab and (cost := await tab.settle(paid, outcome, ended_at=self.clock.now())):
            self._costs.append(cost)

    async def _used(self, *, free: bool) -> Usage:
        """As the provider says, else as it is counted here; nothing of a call that was refused."""
        written, call = self._transcript.written, self._transcript.call
        if written.usage and not written.usage.estimated:
            return written.usage
        if call is None or (free and not written.pieces):
            return Usage(0, 0)
        return await self.counter.spent(self._target.model, call, written)

    async def _end(self, failure: MeshError | None, started_at: datetime) -> None:
        outcome = failure.reason_name if failure else self._transcript.finish.value.upper()
        try:
            if self.tab or self.course.target.free:
                await self._settle(_settled_as(failure), refused=isinstance(failure, REFUSED))
            self.guard.ended(facts=self._facts, stopped=self._outgrown)
            await report(self.policy, self.payer, self._verdicts, at=self.clock.now())
            await self._record(outcome, started_at)
            well = Answered(self._transcript, self.course.target, self._attempts) if failure is None else None
            await self.kept(well)
        finally:  # whatever happens, readers are not left waiting
            self.generation.append(self._last(failure, started_at), last=True)
        failed, micros = failure is not None, sum(cost.micros_usd for cost in self._costs)
        self.ended(Ended(self._transcript, self.course.target, outcome, failed, micros, started_at))
        tokens = self._transcript.spent().output_tokens
        log.info("generation.ended", generation_id=self.generation.id, outcome=outcome, output_tokens=tokens)

    def _last(self, failure: MeshError | None, started_at: datetime) -> events.Event:
        target = self._target
        summary = events.Summary(
            target=replace(target, source=ANSWER_SOURCE_RECORDING) if self._transcript.recorded else target,
            usage=self._transcript.spent(),
            micros_usd=sum(cost.micros_usd for cost in self._costs),
            price_version=self._costs[-1].price_version if self._costs else "",
            attempts=self._attempts,
            monitors=self._monitors(),
        )
        if failure:
            return events.failed(summary, failure)
        first = self._transcript.first_token_at
        return events.finished(summary, self._transcript.finish, started_at=started_at, first_token_at=first)

    def _monitors(self) -> list[Status]:
        tally = Tally((*self.judged_before(), *self.guard.statuses()))
        tally.add(self.numbers.statuses())
        return tally.statuses()

    async def _record(self, outcome: str, started_at: datetime) -> None:
        ended_at, usage, target = self.clock.now(), self._transcript.spent(), self._target
        _latency.record((ended_at - started_at) / timedelta(milliseconds=1), self._labels())
        labels = {"model": target.model.name, "provider": target.provider.name, "tenant": self.generation.tenant}
        _tokens.add(usage.input_tokens + usage.output_tokens, labels)
        record = GenerationRecord(
            self.generation.id, self.payer.session_id, self.payer.agent, target.provider.name, target.model.name,
            outcome, usage, started_at, ended_at, self.payer.model, self.prompt_version, self._attempts,
        )  # fmt: skip
        try:
            await self.store.finish(self.generation.tenant, record)
        except MeshError as error:
            log.warning("generation.not_recorded", generation_id=self.generation.id, error=error.message)

    @property
    def _target(self) -> Target:
        return self._served or self.course.target

    def _labels(self) -> dict[str, str]:
        target = self._target
        return {"model": target.model.name, "provider": target.provider.name, "agent": self.payer.agent}


def _settled_as(failure: MeshError | None) -> Ending:
    """How the ledger has it: stopped by policy or money, called off, cut by a provider, or completed."""
    if failure is None:
        return Ending.COMPLETED
    if isinstance(failure, GenerationCancelled):
        return Ending.CANCELLED
    return Ending.CUT if isinstance(failure, PROVIDER_FAULTS) else Ending.STOPPED


def _attempt_id(generation_id: str, attempt: int) -> str:
    """Under which id a later attempt is leased and paid. Leases know ids alone: a settlement of the first attempt that
    comes late must not end the lease of the second.
    """
    return f"{generation_id[:56]}-try{attempt}"
