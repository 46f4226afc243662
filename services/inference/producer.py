"""The task of one generation: from the provider through policy into events, paid for whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from google.protobuf.duration_pb2 import Duration

from agentnet.common.v1 import usage_pb2
from agentnet.inference.v1 import generation_pb2 as pb
from services.inference.enforcement import blocked, report
from services.inference.errors import GenerationCancelled
from services.inference.generation import Generation
from services.inference.peers import Cost, CostPeer, Payer, PolicyPeer
from services.inference.providers.contract import Chunk, FinishReason, ModelCall, Provider, Usage, estimate_input
from services.inference.store import GenerationRecord, GenerationStore
from shared.clock import Clock
from shared.errors import Internal, MeshError
from shared.log import log
from shared.monitors.rules import Verdict
from shared.monitors.stream import Ruling, StreamMonitor, statuses
from shared.rpc.deadline import without_deadline
from shared.telemetry import meter, tracer

_EXTEND_AT: Final = 0.75
_SETTLE_TRIES: Final = 5
_SETTLE_PAUSE: Final = timedelta(milliseconds=200)
_FINISH: Final = {
    FinishReason.STOP: pb.FINISH_REASON_STOP,
    FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
    FinishReason.CONTENT_FILTER: pb.FINISH_REASON_CONTENT_FILTER,
}
_latency = meter.create_histogram("inference_latency_ms", unit="ms", description="of whole generations")
_tokens = meter.create_counter("tokens_consumed_total", description="input and output, by model, provider and tenant")


@dataclass(slots=True)
class Producer:
    """Produces one generation. Its outcome is always the last event, after the one settlement."""

    generation: Generation
    provider: Provider
    call: ModelCall
    payer: Payer
    monitor: StreamMonitor
    covered: int
    cost: CostPeer
    policy: PolicyPeer
    store: GenerationStore
    clock: Clock
    _verdicts: list[Verdict] = field(default_factory=list)
    _counted: int = 0
    _untold: int = 0
    _usage: Usage | None = None
    _finish: FinishReason = FinishReason.STOP
    _first_token_at: datetime | None = None

    async def run(self, prompt_verdicts: Sequence[Verdict]) -> None:
        """To the end. Being cancelled is an outcome too."""
        without_deadline()
        started_at = self.clock.now()
        self._started(prompt_verdicts)
        failure: MeshError | None = Internal("the generation failed", generation_id=self.generation.id)
        with tracer.start_as_current_span("agent.inference", attributes=self._labels()):
            try:
                await self._produce()
                failure = None
            except asyncio.CancelledError:
                failure = GenerationCancelled("the generation was cancelled", generation_id=self.generation.id)
            except MeshError as error:
                failure = error
            finally:
                await _finished(asyncio.ensure_future(self._end(failure, started_at)))

    async def _produce(self) -> None:
        async with aclosing(self.provider.stream(self.call)) as chunks:
            async for chunk in chunks:
                self._count(chunk)
                if chunk.text:
                    self._show(self.monitor.feed(chunk.text), chunk.token_count)
                await self._stay_covered()
        self._show(self.monitor.finish(), 0)

    def _started(self, verdicts: Sequence[Verdict]) -> None:
        started = pb.GenerationStarted(
            provider=self.provider.name, model=self.call.model, input_tokens=estimate_input(self.call)
        )
        self.generation.append(pb.GenerationEvent(started=started))
        for verdict in verdicts:
            self._judged(verdict)

    def _count(self, chunk: Chunk) -> None:
        if chunk.token_count and self._first_token_at is None:
            self._first_token_at = self.clock.now()
        self._counted += chunk.token_count
        self._usage = chunk.usage or self._usage
        self._finish = chunk.finish_reason or self._finish

    def _show(self, ruling: Ruling, token_count: int) -> None:
        for verdict in ruling.verdicts:
            self._judged(verdict)
        self._untold += token_count  # tokens of text held back count in the event that releases it
        if ruling.text:
            text = pb.TextProduced(text=ruling.text, token_count=self._untold)
            self._untold = 0
            self.generation.append(pb.GenerationEvent(text=text))
        if ruling.blocked:
            raise blocked(ruling, "the output")

    def _judged(self, verdict: Verdict) -> None:
        self._verdicts.append(verdict)
        self.generation.append(
            pb.GenerationEvent(
                verdict=pb.PolicyVerdict(
                    rule=verdict.rule.name,
                    bundle=verdict.bundle,
                    action=verdict.action.value,
                    severity=verdict.rule.severity.value,
                    span_start=verdict.start,
                    span_end=verdict.end,
                    target=verdict.target.value,
                )
            )
        )

    async def _stay_covered(self) -> None:
        if self._counted < self.covered * _EXTEND_AT or self.covered >= self.call.max_output_tokens:
            return
        self.covered = min(max(self.covered, self._counted) * 2, self.call.max_output_tokens)
        await self.cost.extend(self.payer, output_tokens=self.covered)

    async def _end(self, failure: MeshError | None, started_at: datetime) -> None:
        usage = self._usage or Usage(estimate_input(self.call), self._counted, estimated=True)
        outcome = failure.reason_name if failure else self._finish.value.upper()
        cost: Cost | None = None
        try:
            cost = await self._settle(usage)
            await report(self.policy, self.payer, self._verdicts, at=self.clock.now())
            await self._record(outcome, usage, started_at)
        finally:  # whatever happens, readers are not left waiting
            self.generation.append(self._last(failure, usage, cost, started_at), last=True)
        log.info(
            "generation.ended", generation_id=self.generation.id, outcome=outcome, output_tokens=usage.output_tokens
        )

    async def _record(self, outcome: str, usage: Usage, started_at: datetime) -> None:
        ended_at = self.clock.now()
        self._measure(usage, (ended_at - started_at) / timedelta(milliseconds=1))
        record = GenerationRecord(
            self.generation.id, self.payer.session_id, self.payer.agent, self.provider.name, self.call.model, outcome,
            usage, started_at, ended_at,
        )  # fmt: skip
        try:
            await self.store.finish(self.generation.tenant, record)
        except MeshError as error:
            log.warning("generation.not_recorded", generation_id=self.generation.id, error=error.message)

    async def _settle(self, usage: Usage) -> Cost | None:
        """The one settlement. Cost being away for a second is bridged; longer is logged and left to its lease."""
        for attempt in range(1, _SETTLE_TRIES + 1):
            try:
                return await self.cost.settle(self.payer, usage)
            except MeshError as error:
                if not error.retryable or attempt == _SETTLE_TRIES:
                    log.error("generation.not_settled", generation_id=self.generation.id, error=error.message)
                    return None
            await asyncio.sleep(_SETTLE_PAUSE.total_seconds() * attempt)
        return None

    def _last(
        self, failure: MeshError | None, usage: Usage, cost: Cost | None, started_at: datetime
    ) -> pb.GenerationEvent:
        spent = usage_pb2.Usage(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cached_input_tokens=usage.cached_input_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            estimated=usage.estimated,
        )
        paid = usage_pb2.Cost(provider=self.provider.name, model=self.call.model)
        if cost:
            paid.micros_usd, paid.price_version = cost.micros_usd, cost.price_version
        monitors = [
            pb.MonitorTiming(rule=name, status=status, elapsed=_duration(timedelta(seconds=seconds)))
            for name, status, seconds in statuses(self.monitor)
        ]
        if failure:
            failed = pb.GenerationFailed(failure=failure.failure(), usage=spent, cost=paid, monitors=monitors)
            return pb.GenerationEvent(failed=failed)
        finished = pb.GenerationFinished(finish_reason=_FINISH[self._finish], usage=spent, cost=paid, monitors=monitors)
        if self._first_token_at:
            finished.time_to_first_token.FromTimedelta(self._first_token_at - started_at)
        return pb.GenerationEvent(finished=finished)

    def _labels(self) -> dict[str, str]:
        return {"model": self.call.model, "provider": self.provider.name, "agent": self.payer.agent}

    def _measure(self, usage: Usage, milliseconds: float) -> None:
        _latency.record(milliseconds, self._labels())
        labels = {"model": self.call.model, "provider": self.provider.name, "tenant": self.generation.tenant}
        _tokens.add(usage.input_tokens + usage.output_tokens, labels)


async def _finished(work: asyncio.Future[None]) -> None:
    """Waits for work that no cancellation may cut short: what was spent must be settled."""
    while not work.done():
        with suppress(asyncio.CancelledError):
            await asyncio.shield(work)


def _duration(span: timedelta) -> Duration:
    message = Duration()
    message.FromTimedelta(span)
    return message
