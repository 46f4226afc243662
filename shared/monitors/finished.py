"""Rules about a whole answer at the end of its stream, and how each monitor of a turn did."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Final

from shared.monitors.pipeline import ERROR, STOPS, GuardrailContext, Report, matched, settled, worst
from shared.monitors.rules import EXCUSED, PASS, RANK, WHOLE, Action, Bundle, Target
from shared.monitors.stream import Ruling, eased
from shared.monitors.validation import validate

Status = tuple[str, str, float]  # a rule, its worst outcome, its seconds
_WORSE: Final = (PASS, EXCUSED, ERROR, *(action.value for action in RANK))


def with_whole_rules(bundles: Sequence[Bundle]) -> tuple[Bundle, ...]:
    """Those that have a rule about a finished answer."""
    return tuple(bundle for bundle in bundles if any(rule.type in WHOLE for rule in bundle.rules))


class FinishedMonitor:
    """What other monitors let through of one stream, validated when it has ended. Where a rule may stop or replace the
    answer, nothing of it is shown before.
    """

    def __init__(self, bundles: Sequence[Bundle], sources: Sequence[str]) -> None:
        self._context = GuardrailContext(bundles, Target.OUTPUT, sources=sources)
        self._actions = {
            rule.name: eased(rule, bundle.mode, Target.OUTPUT).acts_on(Target.OUTPUT)
            for bundle in bundles
            for rule in bundle.rules
            if rule.type in WHOLE
        }
        self._holds = bool((STOPS | {Action.REDACT}) & set(self._actions.values()))
        self._pieces: list[str] = []
        self.statuses: list[Status] = [(name, PASS, 0.0) for name in self._actions]

    def feed(self, ruling: Ruling) -> Ruling:
        """What may be shown already of what came through."""
        self._pieces.append(ruling.text)
        return ruling._replace(text="") if self._holds else ruling

    def finish(self, ruling: Ruling, *, answers: bool) -> Ruling:
        """The last ruling, with what the whole comes to. `answers` is false for a text beside calls of tools."""
        if ruling.blocked:
            return self.feed(ruling)
        began, text = time.perf_counter(), "".join((*self._pieces, ruling.text))
        flaws = validate(self._context.bundles, text, self._context.sources, answers=answers)
        outcome = settled(text, [matched(flaw.verdict) for flaw in flaws], self._context)
        share = (time.perf_counter() - began) / len(self._actions)
        found = {name: [one for one in outcome.findings if one.verdict.rule.name == name] for name in self._actions}
        self.statuses = [(name, worst(some), share) for name, some in found.items()]
        verdicts = (*ruling.verdicts, *(one.verdict for one in outcome.findings))
        return Ruling(outcome.text if self._holds else ruling.text, verdicts, outcome.blocked)


class Tally:
    """How each monitor did so far, by rule: its worst outcome and all its seconds."""

    def __init__(self, statuses: Iterable[Status] = ()) -> None:
        self._found: dict[str, tuple[str, float]] = {}
        self.add(statuses)

    def add(self, statuses: Iterable[Status]) -> None:
        for name, status, seconds in statuses:
            known, spent = self._found.get(name, (status, 0.0))
            worst_of = known if known == status else max(known, status, key=_WORSE.index)
            self._found[name] = (worst_of, spent + seconds)

    def reported(self, reports: Iterable[Report]) -> None:
        self.add((one.name, one.status, one.elapsed / timedelta(seconds=1)) for one in reports)

    def statuses(self) -> list[Status]:
        return [(name, status, seconds) for name, (status, seconds) in self._found.items()]
