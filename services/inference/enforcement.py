"""The policy this replica enforces: the last snapshot received, compiled once a tenant, kept when policy is away."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from services.inference.errors import ApprovalRequired, PolicyBlocked, PolicyUnavailable
from services.inference.numbers import with_number_rules
from services.inference.peers import Payer, PolicyPeer
from services.inference.sentences import SentenceRules, with_sentence_rules
from shared.errors import MeshError, Unavailable
from shared.log import log
from shared.monitors.decisions import Decided, Decisions, Heard, named
from shared.monitors.enforced import Enforced
from shared.monitors.finished import FinishedMonitor, Status, Tally, with_whole_rules
from shared.monitors.pipeline import Outcome
from shared.monitors.rules import EXCUSED, RANK, Action, Bundle, Rule, RuleType, Target, Verdict
from shared.monitors.stream import CompiledRule, Ruling, StreamMonitor, compile_rules, judge, statuses
from shared.monitors.windowed import WindowedMonitor

# Takes what was decided of one part of a call.
GuardNote = Callable[[str, Decided], None]

_REPORT_AT_ONCE: Final = 100
_KNOWN_AT_MOST: Final = 10_000


@dataclass(frozen=True, slots=True)
class Held:
    """Rules by what they judge: those that read as text flows, compiled, and the bundles with rules for sentences, for
    numbers and for whole answers.
    """

    prompt: tuple[CompiledRule, ...]
    output: tuple[CompiledRule, ...]
    arguments: tuple[CompiledRule, ...]
    prompt_sentences: tuple[Bundle, ...]
    output_sentences: tuple[Bundle, ...]
    numbers: tuple[Bundle, ...]
    whole: tuple[Bundle, ...]
    labels: tuple[str, ...] = ()
    excused: tuple[str, ...] = ()
    """Rules that an override took out of these."""

    @classmethod
    def of(cls, bundles: Sequence[Bundle]) -> Held:
        return cls(
            prompt=compile_rules(bundles, Target.PROMPT),
            output=compile_rules(bundles, Target.OUTPUT),
            arguments=compile_rules(bundles, Target.TOOL_ARGUMENTS),
            prompt_sentences=with_sentence_rules(bundles, Target.PROMPT),
            output_sentences=with_sentence_rules(bundles, Target.OUTPUT),
            numbers=with_number_rules(bundles),
            whole=with_whole_rules(bundles),
            labels=tuple(bundle.label for bundle in bundles),
        )


_NOTHING: Final = Held.of(())


class Guard:
    """All that one generation says, under the rules of its tenant: text, thoughts and the arguments of tools."""

    def __init__(
        self,
        held: Held,
        sentences: SentenceRules | None,
        note: GuardNote | None = None,
        sources: Sequence[str] = (),
    ) -> None:
        self._held = held
        self._sentences = sentences
        self._sources = sources
        self._whole = FinishedMonitor(held.whole, sources) if held.whole else None
        self._note = note
        self._said, self._thought, self._asked = Heard(Target.OUTPUT), Heard(Target.OUTPUT), list[Decided]()
        self._text = StreamMonitor(held.output, Target.OUTPUT)
        self._reasoning: StreamMonitor | None = None  # most models do not think aloud
        self._slow_text = WindowedMonitor(self._text, sentences.judge) if sentences else None
        self._slow_reasoning: WindowedMonitor | None = None

    async def text(self, piece: str) -> Ruling:
        """Judges the next piece of text. Raises PolicyUnavailable."""
        ruling = await self._slow_text.feed(piece) if self._slow_text else self._text.feed(piece)
        if self._whole:
            ruling = self._whole.feed(ruling)
        return self._said.saw(piece, ruling) if self._note else ruling

    async def reasoning(self, piece: str) -> Ruling:
        """The same of what the model thinks."""
        if self._reasoning is None:
            self._reasoning = StreamMonitor(self._held.output, Target.OUTPUT)
            if self._sentences:
                self._slow_reasoning = WindowedMonitor(self._reasoning, self._sentences.judge)
        ruling = await self._slow_reasoning.feed(piece) if self._slow_reasoning else self._reasoning.feed(piece)
        return self._thought.saw(piece, ruling) if self._note else ruling

    async def end_of_text(self, *, answers: bool = True) -> Ruling:
        """Judges what is still held back, then the whole; `answers` is false for a text beside calls of tools."""
        ruling = await self._slow_text.finish() if self._slow_text else self._text.finish()
        if self._whole:
            ruling = self._whole.finish(ruling, answers=answers)
        return self._said.saw("", ruling)

    async def end_of_reasoning(self) -> Ruling:
        if self._reasoning is None:
            return Ruling("")
        ruling = await self._slow_reasoning.finish() if self._slow_reasoning else self._reasoning.finish()
        return self._thought.saw("", ruling)

    def arguments(self, text: str) -> Ruling:
        """Judges a tool's arguments, whole. What a rule would redact blocks when the rest is no longer JSON."""
        ruling = _judged_arguments(self._held, text)
        if self._note:
            self._asked.append(Decided.by(ruling, Target.TOOL_ARGUMENTS, text))
        return ruling

    def ended(self, *, facts: Mapping[str, float], stopped: bool) -> None:
        """Tells what was decided over the whole of it; `stopped`: by its numbers, which are `facts`."""
        if self._note is None:
            return
        if self._said.length or stopped:
            self._said.stopped |= stopped
            self._note("output", self._said.decided(facts=facts))
        if self._thought.length:
            self._note("reasoning", self._thought.decided())
        for place, decided in enumerate(self._asked):
            self._note(f"call-{place}", decided)

    def anew(self) -> Guard:
        """The same rules for output that starts anew."""
        return Guard(self._held, self._sentences, self._note, self._sources)

    def statuses(self) -> list[tuple[str, str, float]]:
        """Each rule of the output, its worst outcome and the seconds it took."""
        tally = Tally(statuses(*filter(None, (self._text, self._reasoning))))
        tally.add(self._sentences.tally.statuses() if self._sentences else ())
        tally.add(self._whole.statuses if self._whole else ())
        tally.add((name, EXCUSED, 0.0) for name in self._held.excused)
        return tally.statuses()


@dataclass(frozen=True, slots=True)
class JudgedPrompt:
    """A prompt under its rules: its texts as they may leave, what was found, and the refusal when a rule blocks it."""

    texts: list[str]
    verdicts: list[Verdict]
    refusal: PolicyBlocked | None
    monitors: Sequence[StreamMonitor] = ()
    slow: Tally = field(default_factory=Tally)

    def statuses(self) -> list[Status]:
        """Each rule of the prompt, its worst outcome and the seconds it took."""
        return [*statuses(*self.monitors), *self.slow.statuses()]


class Enforcement:
    """Monitors by tenant."""

    def __init__(
        self, enforced: Enforced[Held], policy: PolicyPeer, *, strict: bool, decisions: Decisions | None = None
    ) -> None:
        self._decisions = decisions
        self._enforced = enforced
        self._policy = policy
        self._strict = strict
        self._named: dict[tuple[str, str, tuple[str, ...], frozenset[str]], Held] = {}
        self._named_under = 0

    async def held(self, payer: Payer, named: tuple[str, ...], excused: frozenset[str] = frozenset()) -> Held:
        """What holds for a call: its agent's bundles and those it names itself, without the rules it is excused from.
        Raises PolicyUnavailable, and policy's BUNDLE_NOT_FOUND.
        """
        tenant, agent = payer.principal.tenant_id, payer.agent
        held = self._enforced.held(tenant, agent)
        if held is None and self._strict:
            raise PolicyUnavailable("no policy has been received yet and this mesh is strict", dependency="policy")
        return await self._with(payer, named, excused) if named or excused else held or _NOTHING

    async def _with(self, payer: Payer, named: tuple[str, ...], excused: frozenset[str]) -> Held:
        """Asked of policy once a snapshot."""
        if self._named_under != self.revision or len(self._named) >= _KNOWN_AT_MOST:
            self._named, self._named_under = {}, self.revision
        whose, revision = (payer.principal.tenant_id, payer.agent, named, excused), self.revision
        if whose in self._named:
            return self._named[whose]
        more = [await self._policy.bundle(payer, name) for name in named]
        tenant, agent = payer.principal.tenant_id, payer.agent
        found = self._enforced.with_more(tenant, agent, more, without=excused)
        if excused:
            rules = self._enforced.rules(tenant, agent, more)
            found = replace(
                found, excused=tuple(rule.name for rule in rules if rule.name in excused and _watches(rule))
            )
        if revision == self.revision:  # another one may have come while policy was asked
            self._named[whose] = found
        return found

    async def excused(self, payer: Payer, texts: Sequence[str], token: str) -> frozenset[str]:
        """The rules that an override excuses this call from. Without policy's word none is."""
        if not token:
            return frozenset()
        try:
            return await self._policy.excused(payer, texts[0] if texts else "", token)
        except Unavailable as error:
            raise PolicyUnavailable("the override cannot be checked", dependency="policy") from error

    async def check_prompt(self, held: Held, payer: Payer, texts: Sequence[str], *, override: str = "") -> JudgedPrompt:
        """What rules say of a prompt. Raises PolicyUnavailable."""
        monitors, tally = [StreamMonitor(held.prompt, Target.PROMPT) for _ in texts], Tally()
        rulings = [monitor.finish(text) for monitor, text in zip(monitors, texts, strict=True)]
        left = [await self._masked(held, payer, *pair) for pair in zip(texts, rulings, strict=True)]
        if held.prompt_sentences and not any(ruling.blocked for ruling in rulings):
            slow = SentenceRules(self._policy, payer, held.prompt_sentences, Target.PROMPT, override)
            outcomes = [await slow.judge(text) if text else Outcome(text) for text in left]
            tally = slow.tally
            rulings += [
                Ruling(outcome.text, tuple(one.verdict for one in outcome.findings), outcome.blocked)
                for outcome in outcomes
            ]
            left = [outcome.text for outcome in outcomes]
        if note := self._noting(held, payer):
            note("prompt", _of_prompt(texts, rulings))
        refusals = [blocked(ruling, "the prompt") for ruling in rulings if ruling.blocked]
        verdicts = [verdict for ruling in rulings for verdict in ruling.verdicts]
        return JudgedPrompt(left, verdicts, refusals[0] if refusals else None, monitors, tally)

    async def _masked(self, held: Held, payer: Payer, text: str, ruling: Ruling) -> str:
        """What rules leave of a text, with pseudonyms where a rule wants them; with its marks where policy is away."""
        kinds = sorted({one.kind for one in ruling.verdicts if _pseudonymous(one)})
        if ruling.blocked or not kinds:
            return ruling.text
        try:
            masked = await self._policy.pseudonymized(payer, text, kinds)
        except MeshError as error:
            log.warning("pseudonyms.not_made", generation_id=payer.generation_id, error=error.message)
            return ruling.text
        return StreamMonitor(held.prompt, Target.PROMPT).finish(masked).text

    def guard(self, held: Held, payer: Payer, *, override: str = "", sources: Sequence[str] = ()) -> Guard:
        """Fresh monitors for one generation; `sources` are what its answer may draw on."""
        note = self._noting(held, payer)
        if not held.output_sentences:
            return Guard(held, None, note, sources)
        slow = SentenceRules(self._policy, payer, held.output_sentences, Target.OUTPUT, override)
        return Guard(held, slow, note, sources)

    def _noting(self, held: Held, payer: Payer) -> GuardNote | None:
        """How what is decided of a call is told; None when policy does not want it."""
        decisions, tenant = self._decisions, payer.principal.tenant_id
        if decisions is None or not decisions.wants(tenant, payer.session_id or payer.generation_id):
            return None

        def note(part: str, decided: Decided) -> None:
            name, agent, session = f"{payer.generation_id}-{part}", payer.agent, payer.session_id
            decisions.keep(tenant, replace(decided, id=name, agent=agent, session_id=session, bundles=held.labels))

        return note

    @property
    def revision(self) -> int:
        """Which policy is enforced: another one may judge the same answer otherwise."""
        return self._enforced.revision


def _pseudonymous(verdict: Verdict) -> bool:
    return verdict.action is Action.REDACT and verdict.rule.params.get("pseudonyms") is True


def _watches(rule: Rule) -> bool:
    """Whether the rule is one of a generation's monitors."""
    return rule.type is not RuleType.TOOL_ARGUMENTS and rule.target is not Target.TOOL_ARGUMENTS


def _judged_arguments(held: Held, text: str) -> Ruling:
    ruling = judge(held.arguments, Target.TOOL_ARGUMENTS, text)
    if ruling.text == text or ruling.blocked:
        return ruling
    try:
        json.loads(ruling.text)
    except ValueError:
        return ruling._replace(blocked=True)
    return ruling


def _of_prompt(texts: Sequence[str], rulings: Sequence[Ruling]) -> Decided:
    """All texts of a prompt as one decision. The later rulings are those of sentences, in the same order."""
    passed = [(*texts, *texts)[place] == ruling.text for place, ruling in enumerate(rulings)]
    stopped = any(ruling.blocked for ruling in rulings)
    verdicts = [verdict for ruling in rulings for verdict in ruling.verdicts]
    return Decided(Target.PROMPT, "\n\n".join(texts), not stopped, not stopped and all(passed), named(verdicts))


async def report(policy: PolicyPeer, payer: Payer, verdicts: Sequence[Verdict], *, at: datetime) -> None:
    """Tells policy what rules did. Its being away changes nothing for the caller: it is logged."""
    named = [(f"{payer.generation_id}-{place}", verdict) for place, verdict in enumerate(verdicts)]
    try:
        for start in range(0, len(named), _REPORT_AT_ONCE):
            await policy.record(payer, named[start : start + _REPORT_AT_ONCE], at=at)
    except MeshError as error:
        log.error("violations.not_recorded", generation_id=payer.generation_id, error=error.message)


def blocked(ruling: Ruling, what: str) -> PolicyBlocked:
    """The error that says which rule stopped it."""
    return stopped_by(max(ruling.verdicts, key=lambda one: RANK.index(one.action)), what)


def call_blocked(ruling: Ruling, tool: str) -> PolicyBlocked:
    """The same of the arguments of a tool."""
    verdict = max(ruling.verdicts, key=lambda one: RANK.index(one.action))
    return stopped_by(verdict, f"calling {tool} with these arguments", tool)


def stopped_by(verdict: Verdict, what: str, tool: str = "") -> PolicyBlocked:
    """The error of a rule that stops something; where leave would help, how to get it."""
    rule, bundle = verdict.rule.name, verdict.bundle
    if verdict.action is not Action.REQUIRE_APPROVAL:
        return PolicyBlocked(f"{what} is blocked by policy: rule {rule} of {bundle}", rule=rule, bundle=bundle)
    return ApprovalRequired(
        f"{what} waits for approval, by rule {rule} of {bundle}: an operator makes an override for that with "
        "CreateOverride (POST /v1/overrides); make the same generation, under another id, with its token as "
        "override_token",
        rule=rule, rules=rule, bundle=bundle, bundles=bundle, tool=tool,
    )  # fmt: skip
