"""Judging outside a stream: all types of rules in one row, for a text, its numbers or a tool call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from services.policy.library import Library
from services.policy.overrides import Overrides
from services.policy.peers import ModelPeer
from services.policy.windows import WindowedGuardrail
from shared.monitors.arguments import Call
from shared.monitors.pipeline import (
    ArgumentsGuardrail,
    GuardrailContext,
    GuardrailPipeline,
    MeasuredGuardrail,
    Outcome,
    StreamedGuardrail,
    ValidationGuardrail,
)
from shared.monitors.rules import Bundle, Target
from shared.telemetry import meter, tracer

_violations = meter.create_counter("violations_total", description="by severity and rule_name")


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be judged. Without a target it is judged as output."""

    text: str
    target: Target
    names: Sequence[tuple[str, str]] = ()
    agent: str = ""
    session_id: str = ""
    facts: Mapping[str, float] = field(default_factory=dict)
    sources: Sequence[str] = ()
    call: Call | None = None
    override_token: str = ""


class Judge:
    """Asks the cheap guardrails first: numbers, arguments, patterns, then form, then models."""

    def __init__(self, library: Library, models: ModelPeer, overrides: Overrides) -> None:
        self._library = library
        self._overrides = overrides
        self._pipeline = GuardrailPipeline(
            (
                MeasuredGuardrail(),
                ArgumentsGuardrail(),
                StreamedGuardrail(),
                ValidationGuardrail(),
                WindowedGuardrail(models),
            )
        )

    async def judge(self, tenant: str, by: str, question: Question) -> Outcome:
        """The outcome under the tenant's rules. Raises BundleNotFound, OverrideInvalid and OverrideExpired."""
        bundles = await self._library.bundles(tenant, question.agent, question.names)
        overridden: frozenset[str] = frozenset()
        if question.override_token:
            overridden = await self._overrides.excused(
                tenant, question.override_token, by=by, agent=question.agent, session_id=question.session_id
            )
        return await self.under(bundles, tenant, question, overridden)

    async def under(
        self, bundles: Sequence[Bundle], tenant: str, question: Question, overridden: frozenset[str] = frozenset()
    ) -> Outcome:
        """The outcome under given rules."""
        context = GuardrailContext(
            bundles=bundles,
            target=question.target,
            tenant=tenant,
            agent=question.agent,
            facts=question.facts,
            sources=question.sources,
            call=question.call,
            overridden=overridden,
        )
        with tracer.start_as_current_span("monitor.sequence", attributes={"agent": question.agent}):
            outcome = await self._pipeline.run(question.text, context)
        for found in outcome.findings:
            rule = found.verdict.rule
            _violations.add(1, {"severity": rule.severity.value, "rule_name": rule.name})
        return outcome
