"""Judging outside a stream: all types of rules in one row, for a text, its numbers or a tool call."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from services.policy.classifiers import Classifiers
from services.policy.library import Library
from services.policy.overrides import Overrides
from services.policy.peers import ModelPeer
from services.policy.simulation import Decision, Input, Simulator
from services.policy.store import Violation
from services.policy.windows import WindowedGuardrail
from shared.clock import Clock
from shared.ids import Ids
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
from shared.telemetry import tracer

_AGAIN: Final = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be judged; a `sentence` only by rules that read sentences."""

    text: str
    target: Target
    names: Sequence[tuple[str, str]] = ()
    agent: str = ""
    session_id: str = ""
    facts: Mapping[str, float] = field(default_factory=dict)
    sources: Sequence[str] = ()
    call: Call | None = None
    override_token: str = ""
    sentence: bool = False


class Judge:
    """Asks the cheap guardrails first: numbers, arguments, patterns, then form, then models."""

    def __init__(
        self,
        library: Library,
        models: ModelPeer,
        overrides: Overrides,
        simulator: Simulator,
        *,
        classifiers: Classifiers,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._library = library
        self._overrides = overrides
        self._simulator = simulator
        self._clock = clock
        self._ids = ids
        self._windowed = windowed = WindowedGuardrail(models, classifiers)
        self._sentences = GuardrailPipeline((windowed,))
        self._pipeline = GuardrailPipeline(
            (MeasuredGuardrail(), ArgumentsGuardrail(), StreamedGuardrail(), ValidationGuardrail(), windowed)
        )

    async def keep_warm(self) -> None:
        """Asks the models of rules in force before texts do, for as long as the service runs."""
        wanted: list[Bundle] = []
        async for enforced in self._library.watch(0, heartbeat=_AGAIN):
            if enforced:
                attached = (stored for some in enforced.attached.values() for _, stored in some)
                stored = (*(one for some in enforced.tenants.values() for one in some), *attached)
                wanted = [one.judged_by for one in stored]
            await self._windowed.warm(wanted)

    async def judge(self, tenant: str, by: str, question: Question) -> Outcome:
        """The outcome under the tenant's rules. Raises BundleNotFound, OverrideInvalid and OverrideExpired."""
        bundles = await self._library.bundles(tenant, question.agent, question.names)
        overridden: frozenset[str] = frozenset()
        if question.override_token:
            overridden = await self._overrides.excused(
                tenant, question.override_token, by=by, agent=question.agent, session_id=question.session_id,
                tool=question.call.tool if question.call else "",
            )  # fmt: skip
        outcome = await self._under(bundles, tenant, question, overridden)
        if not (question.names or question.sentence):
            await self._remember(tenant, question, outcome)
        return outcome

    async def _remember(self, tenant: str, question: Question, outcome: Outcome) -> None:
        """Keeps the decision, and what bundles that are only tried say of it."""
        name, now = self._ids.new("dec"), self._clock.now()
        call = question.call
        given = Input(question.text, question.facts, call.tool if call else "", call.arguments if call else {})
        unchanged = not outcome.blocked and outcome.text == question.text
        decision = Decision(
            name, question.target, question.agent, question.session_id, not outcome.blocked, unchanged, now
        )
        await self._simulator.keep(tenant, [(decision, given)])
        shadows = await self._library.labelled(tenant, "shadow")
        if shadows:
            trying = [bundle.for_agent(question.agent) for bundle in shadows]
            tried = await self._under(trying, tenant, question, frozenset())
            await self._library.record(tenant, _shadows(decision, tried))

    async def reported(self, tenant: str, decisions: Sequence[tuple[Decision, Input]]) -> int:
        """Keeps what enforcement points decided, and what bundles that are only tried say of it, models left out; how
        many are new.
        """
        kept = await self._simulator.keep(tenant, decisions)
        if shadows := await self._library.labelled(tenant, "shadow"):
            found: list[Violation] = []
            for decision, given in decisions:
                found += _shadows(decision, await self._simulator.again(shadows, decision, given))
                await asyncio.sleep(0)  # so much text leaves the loop to others
            await self._library.record(tenant, found)
        return kept

    async def _under(
        self, bundles: Sequence[Bundle], tenant: str, question: Question, overridden: frozenset[str]
    ) -> Outcome:
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
            pipeline = self._sentences if question.sentence else self._pipeline
            return await pipeline.run(question.text, context)


def _shadows(decision: Decision, outcome: Outcome) -> list[Violation]:
    return [
        Violation(
            id=f"{decision.id}-{place}",
            session_id=decision.session_id,
            turn_id="",
            agent=decision.agent,
            monitor_name=found.verdict.rule.name,
            severity=found.verdict.rule.severity,
            violation_type=found.verdict.rule.type.value,
            rationale=found.rationale,
            meta={"bundle": found.verdict.bundle, "action": found.verdict.action.value, "decision": decision.id},
            created_at=decision.created_at,
            shadow=True,
        )
        for place, found in enumerate(outcome.findings)
    ]
