"""Judges text as it flows: holds back what may still become a match, releases the rest, never takes anything back.

What is held begins where the oldest match that may still come began (`automaton.py`), so nothing is held that could
not be part of a match, and nothing that could is shown. Whatever way a text is cut into pieces, the output is the same:
that of judging it whole.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Final, NamedTuple

from shared.monitors.automaton import Automaton
from shared.monitors.detectors import Check, Detector, detectors
from shared.monitors.lane import EveryMatch, FirstMatch, Match, Reach, Valid
from shared.monitors.pattern import PatternInvalid
from shared.monitors.rules import EXCUSED, PASS, RANK, Action, Bundle, Mode, Rule, RuleType, Target, Verdict

__all__ = (
    "HOLD_LIMIT",
    "CompiledRule",
    "CompiledRules",
    "PatternInvalid",
    "RuleType",
    "Ruling",
    "StreamMonitor",
    "compile_pattern",
    "compile_rules",
    "eased",
    "judge",
    "statuses",
)  # fmt: skip

HOLD_LIMIT: Final = 4096
_FORGET_AT: Final = 1024
_FURTHER: Final = 64  # characters looked at in one go behind a redaction
_PASSING: Final = frozenset({Action.ALLOW, Action.WARN, Action.ESCALATE})


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """A rule ready to search with."""

    rule: Rule
    bundle: str
    pattern: tuple[Detector, ...]


@dataclass(frozen=True, slots=True)
class _Entry:
    compiled: CompiledRule
    detector: Detector
    action: Action
    mark: str | None
    """What stands in the place of a match that is taken out; None where a match stops or only is noted."""


@dataclass(frozen=True, slots=True)
class _Lane:
    """Rules that share an automaton. A match names its entry by place."""

    entries: tuple[_Entry, ...]
    checks: tuple[Check | None, ...]
    automaton: Automaton


class CompiledRules(tuple[CompiledRule, ...]):  # noqa: SLOT001 - carries what was made of the rules
    """The rules of one target with their automata: one for those that claim text, one for those that only note it."""

    claiming: _Lane
    """Those that stop come first, the first `stops` of its entries."""
    noting: _Lane
    stops: int

    @classmethod
    def of(cls, rules: Iterable[CompiledRule], target: Target) -> CompiledRules:
        made = cls(rules)
        claiming = [compiled for compiled in made if compiled.rule.acts_on(target) not in _PASSING]
        made.claiming = _lane(sorted(claiming, key=lambda one: -RANK.index(one.rule.acts_on(target))), target)
        made.stops = sum(entry.mark is None for entry in made.claiming.entries)
        made.noting = _lane((compiled for compiled in made if compiled.rule.acts_on(target) in _PASSING), target)
        return made

    @cached_property
    def alone(self) -> bool:
        """Whether one rule claims text: then no other one's match begins within its own."""
        return len(set(self._owners)) <= 1

    @cached_property
    def _owners(self) -> tuple[int, ...]:
        return tuple(id(entry.compiled) for entry in self.claiming.entries)

    def reach(self, valid: Valid) -> Reach:
        """How far one claim goes when others begin within it."""
        return Reach(self.claiming.automaton, valid, self._owners, self.stops)


class Ruling(NamedTuple):
    """What comes out of one piece of text: the text released, what rules did, whether the stream must end."""

    text: str
    verdicts: tuple[Verdict, ...] = ()
    blocked: bool = False


def compile_rules(bundles: Sequence[Bundle], target: Target) -> CompiledRules:
    """The rules that judge a target, in order. Raises PatternInvalid."""
    chosen = (
        CompiledRule(eased(rule, bundle.mode, target), bundle.label, compile_pattern(rule))
        for bundle in bundles
        for rule in bundle.rules
        if rule.judges(target)
    )
    return CompiledRules.of(chosen, target)


def eased(rule: Rule, mode: Mode, target: Target) -> Rule:
    """The rule as the bundle's mode has it: in permissive mode what would stop a call only warns."""
    stops = rule.acts_on(target) in (Action.BLOCK, Action.REQUIRE_APPROVAL)
    return replace(rule, action=Action.WARN) if stops and mode is Mode.PERMISSIVE else rule


def compile_pattern(rule: Rule) -> tuple[Detector, ...]:
    """What the rule looks for. Raises PatternInvalid."""
    return detectors(rule)


class StreamMonitor:
    """One stream under all rules of one target. Rules named in `overridden` note what they find and claim nothing."""

    def __init__(self, rules: Sequence[CompiledRule], target: Target, overridden: Collection[str] = ()) -> None:
        compiled = rules if isinstance(rules, CompiledRules) else _compiled(tuple(rules), target)
        if overridden:
            compiled = _excusing(compiled, frozenset(overridden), target)
        self._rules = compiled
        self._target = target
        self.overridden = frozenset(overridden)
        self._claiming = compiled.claiming.entries
        self._noting = compiled.noting.entries
        self._alone = compiled.alone
        self._checks = compiled.claiming.checks
        self._first = FirstMatch(compiled.claiming.automaton, self._claims)
        self._every = EveryMatch(compiled.noting.automaton, self._notes) if self._noting else None
        self._text = ""
        self._base = 0
        self._released = 0
        self._waiting: Match | None = None
        """A redaction within which a match of another rule may have begun."""
        self._reach: Reach | None = None
        self._seconds = 0.0
        self.worst: dict[str, Action] = {}

    @property
    def held(self) -> int:
        """How many characters are held back."""
        return self._base + len(self._text) - self._released

    @property
    def seconds(self) -> dict[str, float]:
        """Time by rule: rules are searched for all at once, so each has an equal share."""
        return dict.fromkeys((compiled.rule.name for compiled in self._rules), self.share)

    @property
    def share(self) -> float:
        """Each rule's part of the time."""
        return self._seconds / max(1, len(self._rules))

    def feed(self, text: str) -> Ruling:
        """Judges the next piece."""
        if not self._rules:
            return Ruling(text)
        began = time.perf_counter()
        self._text += text
        first = self._first
        common = not (self._noting or self._waiting) and len(self._text) + self._base - self._released <= HOLD_LIMIT
        if common and first.look(text) is None:
            ruling = Ruling(self._release(first.unsure_from))
            if len(self._text) > _FORGET_AT:
                self._forget()
        else:
            ruling = self._judge(text, final=False)
        self._seconds += time.perf_counter() - began
        return ruling

    def finish(self, text: str = "") -> Ruling:
        """Judges the last piece, if there is one, and what is still held: nothing more will come."""
        if not self._rules:
            return Ruling(text)
        began = time.perf_counter()
        self._text += text
        ruling = self._judge(text, final=True)
        self._seconds += time.perf_counter() - began
        return ruling

    def _judge(self, new: str, *, final: bool) -> Ruling:
        verdicts = self._noted(self._every, new, final=final) if self._every else []
        released, claimed, blocked = self._claimed(final=final)
        if blocked:
            verdicts = [verdict for verdict in verdicts if verdict.end <= self._released]
        verdicts += claimed
        self._forget()
        if self._every:
            verdicts.sort(key=lambda verdict: verdict.start)
        return Ruling(released, tuple(verdicts), blocked)

    def _claimed(self, *, final: bool) -> tuple[str, list[Verdict], bool]:
        """Text released, verdicts, and whether the stream must end."""
        first, base, end = self._first, self._base, self._base + len(self._text)
        if not self._claiming:
            return self._release(end), [], False
        released: list[str] = []
        verdicts: list[Verdict] = []
        while claim := self._waiting or self._next(final=final):
            matches = [claim] if self._alone or first.stands_alone(claim) else self._reached(claim, final=final)
            if self._waiting:
                break
            released.append(self._text[self._released - base : claim.start - base])
            self._released = claim.start
            verdicts += [self._verdict(self._claiming[match.pattern], match) for match in matches]
            mark = self._claiming[matches[0].pattern].mark
            if mark is None:
                return "".join(released), verdicts, True
            released.append(mark)
            self._released = until = matches[-1].end
            first.resume(until, self._text[until - base - 1])
        too_long = self._holds_too_much()
        released.append(self._release(end if final and not too_long else first.unsure_from))
        return "".join(released), [*verdicts, self._too_long()] if too_long else verdicts, too_long

    def _next(self, *, final: bool) -> Match | None:
        """The next match that claims text, None while none is sure."""
        first, base, end = self._first, self._base, self._base + len(self._text)
        if end - self._released <= HOLD_LIMIT:
            return first.look(self._text[first.at - base :]) or (first.end() if final else None)
        while True:
            match = first.look(self._text[first.at - base : first.unsure_from + HOLD_LIMIT + 1 - base])
            if match or self._holds_too_much():
                return match
            if first.at >= end:
                return first.end() if final else None

    def _reached(self, claim: Match, *, final: bool) -> list[Match]:
        """What is found where the claim stands: the match that stops, if one begins within it, else the claim and those
        of other rules that go on beyond it. The claim waits while there may be more of them.
        """
        base, end, most = self._base, self._base + len(self._text), claim.start + HOLD_LIMIT + 1
        if claim.pattern < self._rules.stops:
            return [claim]
        reach = self._reach = self._reach or self._rules.reach(self._claims)
        if self._waiting is None:
            reach.begin(claim, self._text[claim.start - base - 1] if claim.start > base else None)
        while not reach.sure and reach.at < min(end, most):
            reach.look(self._text[reach.at - base : min(reach.at + _FURTHER, most) - base])
        self._waiting = None if reach.sure else claim
        if self._waiting and final and not self._holds_too_much():
            reach.finish()
            self._waiting = None
        return [reach.stop] if reach.stop else [claim, *reach.found]

    def _holds_too_much(self) -> bool:
        first, reach = self._first, self._reach
        if self._waiting and reach:
            return reach.at - self._waiting.start > HOLD_LIMIT
        return first.at - first.unsure_from > HOLD_LIMIT

    def _noted(self, every: EveryMatch, text: str, *, final: bool) -> list[Verdict]:
        found = every.look(text)
        if final:
            found += every.end()
        return [self._verdict(self._noting[match.pattern], match) for match in found]

    def _verdict(self, entry: _Entry, match: Match, action: Action | None = None) -> Verdict:
        compiled, action = entry.compiled, action or entry.action
        rule, worst = compiled.rule, self.worst
        name = rule.name
        if name not in worst:
            worst[name] = action
        elif worst[name] is not action:
            worst[name] = max(worst[name], action, key=RANK.index)
        return Verdict(rule, compiled.bundle, action, self._target, match.start, match.end, entry.detector.kind)

    def _too_long(self) -> Verdict:
        """More is held than may be: the rule listed first answers for it, and nothing gets through."""
        match = Match(0, self._released, self._base + len(self._text))
        return self._verdict(self._claiming[0], match, Action.BLOCK)

    def _claims(self, pattern: int, start: int, end: int) -> bool:
        """Whether a match claims its text: its check holds."""
        check, base = self._checks[pattern], self._base
        return check is None or start < base or check(self._text[start - base : end - base])

    def _notes(self, pattern: int, start: int, end: int) -> bool:
        check, base = self._noting[pattern].detector.check, self._base
        return check is None or start < base or check(self._text[start - base : end - base])

    def _release(self, end: int) -> str:
        released, base = self._released, self._base
        if end <= released:
            return ""
        self._released = end
        return self._text[released - base : end - base]

    def _forget(self) -> None:
        """Drops the text nobody will look at again; one character stays for those who look behind."""
        needed = self._released
        if self._every:
            needed = max(min(needed, self._every.unsure_from), self._base + len(self._text) - HOLD_LIMIT)
        keep = needed - self._base - 1
        if keep > 0:
            self._text = self._text[keep:]
            self._base += keep


def _lane(rules: Iterable[CompiledRule], target: Target) -> _Lane:
    entries = tuple(
        _Entry(compiled, detector, rule.acts_on(target), _mark(rule, target))
        for compiled in rules
        for rule in (compiled.rule,)
        for detector in compiled.pattern
    )
    checks = tuple(entry.detector.check for entry in entries)
    checked = {place for place, check in enumerate(checks) if check}
    return _Lane(entries, checks, Automaton([entry.detector.program for entry in entries], checked))


def _mark(rule: Rule, target: Target) -> str | None:
    return (rule.replacement or f"[REDACTED:{rule.name}]") if rule.acts_on(target) is Action.REDACT else None


@lru_cache(maxsize=64)
def _compiled(rules: tuple[CompiledRule, ...], target: Target) -> CompiledRules:
    return CompiledRules.of(rules, target)


@lru_cache(maxsize=64)
def _excusing(rules: CompiledRules, overridden: frozenset[str], target: Target) -> CompiledRules:
    """The same rules, of which those named note what they find and let it pass."""
    return CompiledRules.of(
        (
            replace(one, rule=replace(one.rule, action=Action.ALLOW)) if one.rule.name in overridden else one
            for one in rules
        ),
        target,
    )


def judge(rules: Sequence[CompiledRule], target: Target, text: str, overridden: Collection[str] = ()) -> Ruling:
    """A whole text at once."""
    return StreamMonitor(rules, target, overridden).finish(text)


def statuses(*monitors: StreamMonitor) -> Iterator[tuple[str, str, float]]:
    """Each rule's name, worst outcome and seconds spent, in streams under the same rules."""
    worst: dict[str, Action] = {}
    for monitor in monitors:
        for name, action in monitor.worst.items():
            worst[name] = max(worst.get(name, action), action, key=RANK.index)
    share = sum(monitor.share for monitor in monitors)
    for name in monitors[0].seconds if monitors else ():
        status = worst[name].value if name in worst else PASS
        yield name, EXCUSED if name in monitors[0].overridden else status, share
