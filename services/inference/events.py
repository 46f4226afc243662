"""A generation's events as the contract has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from google.protobuf.duration_pb2 import Duration

from agentnet.common.v1 import usage_pb2
from agentnet.inference.v1 import generation_pb2 as pb
from agentnet.inference.v1 import message_pb2
from services.inference.providers.contract import FinishReason, ToolCall, Usage
from services.inference.route import Target
from shared.errors import MeshError
from shared.monitors.rules import Verdict

Event = pb.GenerationEvent
_FINISH: Final = {
    FinishReason.STOP: pb.FINISH_REASON_STOP,
    FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
    FinishReason.CONTENT_FILTER: pb.FINISH_REASON_CONTENT_FILTER,
    FinishReason.TOOL_CALLS: pb.FINISH_REASON_TOOL_CALLS,
}


@dataclass(frozen=True, slots=True)
class Summary:
    """What the last event says of the whole generation."""

    target: Target
    usage: Usage
    micros_usd: int
    price_version: str
    attempts: int
    monitors: Sequence[tuple[str, str, float]]


def started(target: Target, *, input_tokens: int) -> Event:
    return Event(
        started=pb.GenerationStarted(provider=target.provider.name, model=target.model.name, input_tokens=input_tokens)
    )


def text(shown: str, *, token_count: int) -> Event:
    return Event(text=pb.TextProduced(text=shown, token_count=token_count))


def reasoning(shown: str, *, token_count: int) -> Event:
    return Event(reasoning=pb.ReasoningProduced(text=shown, token_count=token_count))


def tool_call(index: int, call: ToolCall) -> Event:
    shown = message_pb2.ToolCall(id=call.id, name=call.name, arguments=call.arguments)
    return Event(tool_call=pb.ToolCallProduced(index=index, tool_call=shown))


def downgraded(from_model: str, to_model: str, *, reason: str) -> Event:
    return Event(downgraded=pb.Downgraded(from_model=from_model, to_model=to_model, reason=reason))


def failover(source: Target, to: Target, *, restarted: bool, at: int, failure: MeshError) -> Event:
    return Event(
        failover=pb.Failover(
            from_model=source.model.name,
            to_model=to.model.name,
            to_provider=to.provider.name,
            restarted=restarted,
            at_character=at,
            failure=failure.failure(),
        )
    )


def verdict(found: Verdict) -> Event:
    return Event(
        verdict=pb.PolicyVerdict(
            rule=found.rule.name,
            bundle=found.bundle,
            action=found.action.value,
            severity=found.rule.severity.value,
            span_start=found.start,
            span_end=found.end,
            target=found.target.value,
        )
    )


def finished(summary: Summary, finish: FinishReason, *, started_at: datetime, first_token_at: datetime | None) -> Event:
    last = pb.GenerationFinished(
        finish_reason=_FINISH[finish],
        usage=_usage(summary.usage),
        cost=_cost(summary),
        monitors=_monitors(summary),
        attempts=summary.attempts,
        source=summary.target.source,
    )
    if first_token_at:
        last.time_to_first_token.CopyFrom(_duration(first_token_at - started_at))
    return Event(finished=last)


def failed(summary: Summary, failure: MeshError) -> Event:
    return Event(
        failed=pb.GenerationFailed(
            failure=failure.failure(),
            usage=_usage(summary.usage),
            cost=_cost(summary),
            monitors=_monitors(summary),
            attempts=summary.attempts,
        )
    )


def _usage(usage: Usage) -> usage_pb2.Usage:
    return usage_pb2.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_input_tokens=usage.cached_input_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        estimated=usage.estimated,
    )


def _cost(summary: Summary) -> usage_pb2.Cost:
    return usage_pb2.Cost(
        provider=summary.target.provider.name,
        model=summary.target.model.name,
        micros_usd=summary.micros_usd,
        price_version=summary.price_version,
    )


def _monitors(summary: Summary) -> list[pb.MonitorTiming]:
    return [
        pb.MonitorTiming(rule=name, status=status, elapsed=Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9)))
        for name, status, seconds in summary.monitors
    ]


def _duration(span: timedelta) -> Duration:
    message = Duration()
    message.FromTimedelta(span)
    return message
