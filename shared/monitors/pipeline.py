"""Guardrails in a row: each sees what the one before let through, says what it found and how long it took."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import lru_cache
from typing import Final, Protocol

from shared.errors import MeshError
from shared.log import log
from shared.monitors.arguments import Call, judge_arguments
from shared.monitors.facts import judge_facts
from shared.monitors.rules import PASS, RANK, Action, Bundle, Mode, Target, Verdict
from shared.monitors.stream import CompiledRules, StreamMonitor, compile_rules, statuses
from shared.monitors.validation import validate

ERROR: Final = "error"
STOPS: Final = frozenset({Action.BLOCK, Action.REQUIRE_APPROVAL})


@dataclass(frozen=True, slots=True)
class GuardrailContext:
    """What guardrails know beside the text. `overridden` are rules excused by a token; `facts` are numbers by name."""

    bundles: Sequence[Bundle]
    target: Target
    tenant: str = ""
    agent: str = ""
    facts: Mapping[str, float] = field(default_factory=dict)
    sources: Sequence[str] = ()
    call: Call | None = None
    overridden: frozenset[str] = frozenset()

    @property
    def mode(self) -> Mode:
        """Strict as soon as one bundle is."""
        strict = any(bundle.mode is Mode.STRICT for bundle in self.bundles)
        return Mode.STRICT if strict or not self.bundles else Mode.PERMISSIVE


@dataclass(frozen=True, slots=True)
class Finding:
    """What a guardrail says, and why in one sentence."""

    verdict: Verdict
    rationale: str


@dataclass(frozen=True, slots=True)
class Report:
    """One monitor: `status` is "pass", its worst action, "excused" by an override, or "error" when it could not judge;
    `problem` says why not.
    """

    name: str
    status: str
    elapsed: timedelta
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What comes out of a guardrail or of all: the text that may go on, and everything found on the way."""

    text: str
    findings: tuple[Finding, ...] = ()
    reports: tuple[Report, ...] = ()
    blocked: bool = False


class Guardrail(Protocol):
    """One link. A MeshError from it means that it could not judge."""

    name: str

    async def judge(self, text: str, context: GuardrailContext) -> Outcome:
        """What it makes of the text."""


@lru_cache(maxsize=64)
def _compiled(bundles: tuple[Bundle, ...], target: Target) -> CompiledRules:
    """Compiled once: an automaton that has seen texts is warm."""
    return compile_rules(bundles, target)


Hook = Callable[[str, GuardrailContext], Awaitable[str]]


class GuardrailPipeline:
    """Guardrails in order, between hooks that may change the text before and after. What blocks ends the row."""

    def __init__(
        self, guardrails: Sequence[Guardrail], *, before: Sequence[Hook] = (), after: Sequence[Hook] = ()
    ) -> None:
        self._guardrails = tuple(guardrails)
        self._before = tuple(before)
        self._after = tuple(after)

    async def run(self, text: str, context: GuardrailContext) -> Outcome:
        """Through all of them. One that cannot judge blocks in strict mode and is skipped in permissive mode."""
        for hook in self._before:
            text = await hook(text, context)
        findings: list[Finding] = []
        reports: list[Report] = []
        for guardrail in self._guardrails:
            began = time.perf_counter()
            try:
                outcome = await guardrail.judge(text, context)
            except MeshError as error:
                log.warning("guardrail.failed", guardrail=guardrail.name, error=error.message)
                reports.append(_report(guardrail.name, ERROR, began, error.message))
                if context.mode is Mode.STRICT:
                    return Outcome("", tuple(findings), tuple(reports), blocked=True)
                continue
            findings += outcome.findings
            reports += outcome.reports or [_report(guardrail.name, _status(outcome), began)]
            if outcome.blocked:
                return Outcome("", tuple(findings), tuple(reports), blocked=True)
            text = outcome.text
        for hook in self._after:
            text = await hook(text, context)
        return Outcome(text, tuple(findings), tuple(reports))


class StreamedGuardrail:
    """The rules that read every character, over a whole text."""

    name = "streamed"

    async def judge(self, text: str, context: GuardrailContext) -> Outcome:
        monitor = StreamMonitor(_compiled(tuple(context.bundles), context.target), context.target, context.overridden)
        first = monitor.feed(text)
        last = first if first.blocked else monitor.finish()
        shown = first.text if first.blocked else first.text + last.text
        verdicts = first.verdicts if first.blocked else first.verdicts + last.verdicts
        reports = tuple(Report(name, status, timedelta(seconds=seconds)) for name, status, seconds in statuses(monitor))
        return Outcome(shown, tuple(map(matched, verdicts)), reports, blocked=last.blocked)


class MeasuredGuardrail:
    """Budgets and thresholds over the numbers of the context."""

    name = "measured"

    async def judge(self, text: str, context: GuardrailContext) -> Outcome:
        found = [
            Finding(one.verdict, f"{one.metric} is {one.value:g}, the bound is {one.bound:g}")
            for one in judge_facts(context.bundles, context.facts, context.target)
        ]
        return settled(text, found, context)


class ArgumentsGuardrail:
    """CEL over the arguments of the tool call of the context."""

    name = "arguments"

    async def judge(self, text: str, context: GuardrailContext) -> Outcome:
        verdicts = judge_arguments(context.bundles, context.call) if context.call else []
        found = [Finding(one, f"the call of {one.kind} matches rule {one.rule.name}") for one in verdicts]
        return settled(text, found, context)


class ValidationGuardrail:
    """The form and the claims of a finished answer."""

    name = "validation"

    async def judge(self, text: str, context: GuardrailContext) -> Outcome:
        if context.target is not Target.OUTPUT:
            return Outcome(text)
        flaws = validate(context.bundles, text, context.sources)
        return settled(text, [Finding(flaw.verdict, flaw.problem) for flaw in flaws], context)


def settled(text: str, found: Sequence[Finding], context: GuardrailContext) -> Outcome:
    """What findings about a whole text come to: excused ones pass, redaction leaves nothing of the text."""
    kept = [_excused(one) if one.verdict.rule.name in context.overridden else one for one in found]
    if any(one.verdict.action in STOPS for one in kept):
        return Outcome("", tuple(kept), blocked=True)
    redacted = [one.verdict.rule for one in kept if one.verdict.action is Action.REDACT]
    shown = redacted[0].replacement or f"[REDACTED:{redacted[0].name}]" if redacted else text
    return Outcome(shown, tuple(kept))


def _excused(found: Finding) -> Finding:
    return replace(found, verdict=found.verdict._replace(action=Action.ALLOW))


def matched(verdict: Verdict) -> Finding:
    """The finding that a verdict is, in words that tell nothing of the text."""
    what = f" ({verdict.kind})" if verdict.kind else ""
    return Finding(verdict, f"{verdict.target.value} matches rule {verdict.rule.name} of {verdict.bundle}{what}")


def _status(outcome: Outcome) -> str:
    return "block" if outcome.blocked else worst(outcome.findings)


def worst(found: Sequence[Finding]) -> str:
    """The status of a monitor that found these."""
    actions = [one.verdict.action for one in found]
    return max(actions, key=RANK.index).value if actions else PASS


def _report(name: str, status: str, began: float, problem: str = "") -> Report:
    return Report(name, status, timedelta(seconds=time.perf_counter() - began), problem)
