"""Judges text as it flows: holds back what may still become a match, releases the rest, never takes anything back.

What is held begins where the oldest match that may still come began (`automaton.py`), so nothing is held that could
not be part of a match, and nothing that could is shown. Whatever way a text is cut into pieces, the output is the same:
that of judging it whole.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, NamedTuple

from shared.monitors.automaton import Automaton
from shared.monitors.detectors import Detector, detectors
from shared.monitors.lane import EveryMatch, FirstMatch, Match
from shared.monitors.pattern import PatternInvalid
from shared.monitors.rules import RANK, Action, Bundle, Mode, Rule, RuleType, Target, Verdict

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
    mark: str
    """What stands in the place of a match that is taken out."""


@dataclass(frozen=True, slots=True)
class _Lane:
    """Rules that share an automaton. A match names its entry by place."""

    entries: tuple[_Entry, ...]
    automaton: Automaton


class CompiledRules(tuple[CompiledRule, ...]):  # noqa: SLOT001 - carries what was made of the rules
    """The rules of one target with their automata: one for those that claim text, one for those that only note it."""

    claiming: _Lane
    noting: _Lane

    @classmethod
    def of(cls, rules: Iterable[CompiledRule], target: Target) -> CompiledRules:
        made = cls(rules)
        claiming = [compiled for compiled in made if compiled.rule.acts_on(target) not in _PASSING]
        # Of rules that claim the same characters the first has them: one that stops is not hidden by one that redacts.
        made.claiming = _lane(sorted(claiming, key=lambda one: -RANK.index(one.rule.acts_on(target))), target)
        made.noting = _lane((compiled for compiled in made if compiled.rule.acts_on(target) in _PASSING), target)
        return made


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
        self._rules = compiled
        self._target = target
        self._overridden = frozenset(overridden)
        self._claiming = compiled.claiming.entries
        self._noting = compiled.noting.entries
        self._first = FirstMatch(compiled.claiming.automaton, self._claims)
        self._every = EveryMatch(compiled.noting.automaton, self._notes) if self._noting else None
        self._text = ""
        self._base = 0
        self._released = 0
        self._excused: list[Match] = []
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
        common = not self._noting and len(self._text) + self._base - self._released <= HOLD_LIMIT
        if common and first.look(text) is None and not self._excused:
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
        if self._every or self._overridden:
            verdicts.sort(key=lambda verdict: verdict.start)
        return Ruling(released, tuple(verdicts), blocked)

    def _claimed(self, *, final: bool) -> tuple[str, list[Verdict], bool]:
        """Text released, verdicts, and whether the stream must end."""
        first, end = self._first, self._base + len(self._text)
        if not self._claiming:
            return self._release(end), [], False
        released: list[str] = []
        verdicts: list[Verdict] = []
        while True:
            match = first.look(self._text[first.at - self._base : first.unsure_from + HOLD_LIMIT + 1 - self._base])
            if match is None:
                if first.at - first.unsure_from > HOLD_LIMIT:
                    released.append(self._release(first.unsure_from))
                    return "".join(released), [*verdicts, self._too_long()], True
                if first.at < end:
                    continue
                match = first.end() if final else None
            if match is None:
                break
            released.append(self._release(match.start))
            shown = self._act(match, verdicts)
            if shown is None:
                return "".join(released), verdicts, True
            released.append(shown)
            first.resume(match.end, self._text[match.end - self._base - 1])
        released.append(self._release(end if final else first.unsure_from))
        if self._excused:
            verdicts += self._excuses()
        return "".join(released), verdicts, False

    def _noted(self, every: EveryMatch, text: str, *, final: bool) -> list[Verdict]:
        found = every.look(text)
        if final:
            found += every.end()
        return [self._verdict(self._noting[match.pattern], match) for match in found]

    def _act(self, match: Match, verdicts: list[Verdict]) -> str | None:
        """What is shown in the place of a match; None when the stream must end."""
        entry = self._claiming[match.pattern]
        verdicts.append(self._verdict(entry, match))
        if entry.action is not Action.REDACT:
            return None
        self._released = match.end
        return entry.mark

    def _verdict(self, entry: _Entry, match: Match, action: Action | None = None) -> Verdict:
        compiled, action = entry.compiled, action or entry.action
        rule, (_, start, end) = compiled.rule, match
        if self.worst.get(rule.name) is not action:
            self.worst[rule.name] = max(self.worst.get(rule.name, Action.ALLOW), action, key=RANK.index)
        return Verdict(rule, compiled.bundle, action, self._target, start, end, entry.detector.kind)

    def _too_long(self) -> Verdict:
        """More is held than may be: the rule listed first answers for it, and nothing gets through."""
        match = Match(0, self._released, self._base + len(self._text))
        return self._verdict(self._claiming[0], match, Action.BLOCK)

    def _claims(self, pattern: int, start: int, end: int) -> bool:
        """Whether a match claims its text: its check holds and nobody has excused its rule."""
        entry, base = self._claiming[pattern], self._base
        check = entry.detector.check
        if check is not None and start >= base and not check(self._text[start - base : end - base]):
            return False
        if self._overridden and entry.compiled.rule.name in self._overridden:
            self._excused.append(Match(pattern, start, end))
            return False
        return True

    def _notes(self, pattern: int, start: int, end: int) -> bool:
        check, base = self._noting[pattern].detector.check, self._base
        return check is None or start < base or check(self._text[start - base : end - base])

    def _excuses(self) -> list[Verdict]:
        """Overridden rules are told of once a match: the longest from each start."""
        longest = {(match.pattern, match.start): match for match in self._excused}
        self._excused.clear()
        return [self._verdict(self._claiming[match.pattern], match, Action.ALLOW) for match in longest.values()]

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
        _Entry(compiled, detector, rule.acts_on(target), rule.replacement or f"[REDACTED:{rule.name}]")
        for compiled in rules
        for rule in (compiled.rule,)
        for detector in compiled.pattern
    )
    checked = {place for place, entry in enumerate(entries) if entry.detector.check}
    return _Lane(entries, Automaton([entry.detector.program for entry in entries], checked))


@lru_cache(maxsize=64)
def _compiled(rules: tuple[CompiledRule, ...], target: Target) -> CompiledRules:
    return CompiledRules.of(rules, target)


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
        yield name, worst[name].value if name in worst else "pass", share
