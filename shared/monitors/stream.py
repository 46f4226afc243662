"""Judges text as it flows: holds back what may still become a match, releases the rest, never takes anything back.

What is held is exactly what could still be part of a match: a partial match of the `regex` package (its manual, section
"Partial matches") says where that begins. Whatever way a text is cut into pieces, the output is the same.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import regex

from shared.monitors.rules import Action, Bundle, Rule, RuleType, Target, Verdict

HOLD_LIMIT: Final = 4096
_CONTEXT: Final = 64
_SEARCH_SECONDS: Final = 0.25
_PASSING: Final = (Action.WARN, Action.ESCALATE)


class PatternInvalid(ValueError):
    """The pattern does not compile."""


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """A rule ready to search with."""

    rule: Rule
    bundle: str
    pattern: Any


@dataclass(frozen=True, slots=True)
class Ruling:
    """What comes out of one piece of text: the text released, what rules did, whether the stream must end."""

    text: str
    verdicts: tuple[Verdict, ...] = ()
    blocked: bool = False


@dataclass(frozen=True, slots=True)
class _Match:
    compiled: CompiledRule
    start: int
    end: int


def compile_rules(bundles: Sequence[Bundle], target: Target) -> tuple[CompiledRule, ...]:
    """The rules that judge a target, in order. Raises PatternInvalid."""
    return tuple(
        CompiledRule(rule, bundle.label, compile_pattern(rule))
        for bundle in bundles
        for rule in bundle.rules
        if rule.judges(target)
    )


def compile_pattern(rule: Rule) -> Any:
    """The rule's pattern. Raises PatternInvalid."""
    text = rule.pattern
    if rule.type is RuleType.KEYWORD:
        text = r"\b(?:" + "|".join(regex.escape(word) for word in rule.keywords) + r")\b"
    try:
        return regex.compile(text, flags=regex.IGNORECASE if rule.case_insensitive else 0)
    except regex.error as error:
        raise PatternInvalid(str(error)) from None


class StreamMonitor:
    """One stream under all rules of one target."""

    def __init__(self, rules: Sequence[CompiledRule], target: Target) -> None:
        self._rules = rules
        self._target = target
        self._context = ""
        self._held = ""
        self._offset = 0
        self.seconds = dict.fromkeys((compiled.rule.name for compiled in rules), 0.0)
        self.worst: dict[str, Action] = {}

    def feed(self, text: str) -> Ruling:
        """Judges the next piece."""
        if not self._rules:
            return Ruling(text)
        self._held += text
        return self._judge(final=False)

    def finish(self) -> Ruling:
        """Judges what is still held: nothing more will come."""
        return self._judge(final=True)

    def _judge(self, *, final: bool) -> Ruling:
        released: list[str] = []
        verdicts: list[Verdict] = []
        while self._held:
            match, hold_from = self._look(final=final)
            if match is None or match.start >= hold_from:
                released.append(self._pass(hold_from))
                break
            released.append(self._pass(match.start))
            verdict, shown = self._act(match.compiled, match.end - match.start)
            verdicts.append(verdict)
            if shown is None:
                return Ruling("".join(released), tuple(verdicts), blocked=True)
            released.append(shown)
        if len(self._held) > HOLD_LIMIT:
            verdicts.append(self._verdict(self._rules[0], Action.BLOCK, len(self._held)))
            return Ruling("".join(released), tuple(verdicts), blocked=True)
        return Ruling("".join(released), tuple(verdicts))

    def _look(self, *, final: bool) -> tuple[_Match | None, int]:
        """The first sure match, and where what may still match begins; both count from the start of what is held."""
        first: _Match | None = None
        hold_from = len(self._held)
        for compiled in self._rules:
            began = time.perf_counter()
            match, held = self._search(compiled, final=final)
            self.seconds[compiled.rule.name] += time.perf_counter() - began
            hold_from = min(hold_from, held)
            if match and (first is None or (match.start, -match.end) < (first.start, -first.end)):
                first = match
        return first, hold_from

    def _search(self, compiled: CompiledRule, *, final: bool) -> tuple[_Match | None, int]:
        text, start = self._context + self._held, len(self._context)
        nothing = len(self._held)
        try:
            found = compiled.pattern.search(text, start, partial=not final, timeout=_SEARCH_SECONDS)
            if found is None:
                return None, nothing
            if found.partial:
                return None, found.start() - start
            match = _Match(compiled, found.start() - start, max(found.end(), found.start() + 1) - start)
            if final:
                return match, nothing
            growing = (place for place in range(start, found.start() + 1) if _may_grow(compiled.pattern, text, place))
            return match, next(growing, nothing + start) - start
        except TimeoutError:  # a pattern that takes this long lets nothing through
            return _Match(compiled, 0, len(self._held)), nothing

    def _act(self, compiled: CompiledRule, length: int) -> tuple[Verdict, str | None]:
        action = compiled.rule.acts_on(self._target)
        verdict = self._verdict(compiled, action, length)
        matched = self._pass(length)
        if action in _PASSING:
            return verdict, matched
        if action is Action.REDACT:
            return verdict, compiled.rule.replacement or f"[REDACTED:{compiled.rule.name}]"
        return verdict, None

    def _verdict(self, compiled: CompiledRule, action: Action, length: int) -> Verdict:
        self.worst[compiled.rule.name] = max(self.worst.get(compiled.rule.name, Action.WARN), action, key=_RANK.index)
        end = self._offset + length
        return Verdict(compiled.rule, compiled.bundle, action, self._target, self._offset, end)

    def _pass(self, length: int) -> str:
        """Takes text out of what is held; rules may still look back at it."""
        text, self._held = self._held[:length], self._held[length:]
        self._context = (self._context + text)[-_CONTEXT:]
        self._offset += len(text)
        return text


_RANK: Final = [Action.WARN, Action.ESCALATE, Action.REDACT, Action.REQUIRE_APPROVAL, Action.BLOCK]


def _may_grow(pattern: Any, text: str, start: int) -> bool:
    """Whether a match that begins here could reach beyond the text there is."""
    return pattern.fullmatch(text, start, partial=True, timeout=_SEARCH_SECONDS) is not None


def judge(rules: Sequence[CompiledRule], target: Target, text: str) -> Ruling:
    """A whole text at once."""
    monitor = StreamMonitor(rules, target)
    first = monitor.feed(text)
    if first.blocked:
        return first
    last = monitor.finish()
    return Ruling(first.text + last.text, first.verdicts + last.verdicts, blocked=last.blocked)


def statuses(monitor: StreamMonitor) -> Iterator[tuple[str, str, float]]:
    """Each rule's name, worst outcome and seconds spent."""
    for name, seconds in monitor.seconds.items():
        worst = monitor.worst.get(name)
        yield name, worst.value if worst else "pass", seconds
