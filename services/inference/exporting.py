"""Ended generations for whoever collects them: today Langfuse."""

from __future__ import annotations

from datetime import datetime

from services.inference.admission import Order
from services.inference.langfuse.contract import ExportedGeneration, Parameter, Said, Spent
from services.inference.producer import Ended
from services.inference.providers.contract import Usage


def exported(tenant: str, order: Order, ended: Ended, *, at: datetime) -> ExportedGeneration:
    """A generation as it is exported: what the caller sent and what was shown."""
    return ExportedGeneration(
        tenant_id=tenant,
        id=order.generation_id,
        provider=ended.target.provider.name,
        model=ended.target.model.name,
        messages=tuple(Said(message.role.value, message.text, message.name) for message in order.messages),
        output=ended.transcript.shown,
        spent=_spent(ended.transcript.spent(), ended.micros_usd),
        started_at=ended.started_at,
        ended_at=at,
        outcome=ended.outcome,
        failed=ended.failed,
        first_token_at=ended.transcript.first_token_at,
        session_id=order.session_id,
        agent=order.agent,
        parameters=_parameters(order),
        prompt=order.prompt,
    )


def _spent(usage: Usage, micros_usd: int) -> Spent:
    return Spent(
        input_tokens=max(0, usage.input_tokens - usage.cached_input_tokens),
        output_tokens=max(0, usage.output_tokens - usage.reasoning_tokens),
        cached_input_tokens=usage.cached_input_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        micros_usd=micros_usd,
        estimated=usage.estimated,
    )


def _parameters(order: Order) -> dict[str, Parameter]:
    sampling = order.sampling
    chosen = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "seed": sampling.seed,
        "max_output_tokens": order.max_output_tokens,
    }
    return {name: value for name, value in chosen.items() if value is not None}
