"""Rules over a finished answer: its form, its length, and whether what it says is in what it was given."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from shared.monitors.automaton import Automaton
from shared.monitors.lane import EveryMatch
from shared.monitors.pattern import read
from shared.monitors.rules import Bundle, Rule, RuleType, Target, Verdict
from shared.monitors.stream import eased

_CITATION: Final = re.compile(r"\[(\d{1,4})\]")
_NUMBER: Final = re.compile(r"(?<![\w.])\d+(?:[.,]\d+)*(?![\w])")
_SENTENCE: Final = re.compile(r"[^.!?\n]+[.!?]?")


@dataclass(frozen=True, slots=True)
class Flaw:
    """A rule an answer breaks, and how."""

    verdict: Verdict
    problem: str


def validate(bundles: Sequence[Bundle], text: str, sources: Sequence[str] = (), *, answers: bool = True) -> list[Flaw]:
    """What is wrong with a finished answer. `sources` are the texts it may draw on; citations `[1]` count from 1. A
    text beside calls of tools `answers` nothing yet: only what it must not hold counts.
    """
    return [
        Flaw(
            Verdict(
                rule,
                bundle.label,
                eased(rule, bundle.mode, Target.OUTPUT).acts_on(Target.OUTPUT),
                Target.OUTPUT,
                0,
                len(text),
            ),
            problem,
        )
        for bundle in bundles
        for rule in bundle.rules
        if rule.type is RuleType.OUTPUT_VALIDATION
        if (problem := _problem(rule, text, sources, answers=answers))
    ]


def _problem(rule: Rule, text: str, sources: Sequence[str], *, answers: bool) -> str:
    params: Mapping[str, Any] = rule.params
    forbidden = (
        (len(text) > int(params.get("max_characters", len(text))), "it is too long"),
        ("must_not_match" in params and _found(str(params["must_not_match"]), text), "it holds what it must not"),
    )
    demanded = (
        (len(text) < int(params.get("min_characters", 0)), "it is too short"),
        ("must_match" in params and not _found(str(params["must_match"]), text), "it lacks what it must hold"),
        (bool(params.get("json")) and not _is_json(text), "it is not JSON"),
        (bool(params.get("citations")) and not _is_cited(text, sources), "a sentence cites no source that is there"),
        (params.get("supported_by") == "sources" and not _is_supported(text, sources), "a number is in no source"),
    )
    return next((problem for broken, problem in (*forbidden, *(demanded if answers else ())) if broken), "")


def _found(pattern: str, text: str) -> bool:
    every = EveryMatch(Automaton([read(pattern)]), lambda *_: True)
    return bool(every.look(text) or every.end())


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _is_cited(text: str, sources: Sequence[str]) -> bool:
    """Whether every sentence of some length cites a source that exists."""
    sentences = (found.group() for found in _SENTENCE.finditer(text) if len(found.group().split()) > 3)  # noqa: PLR2004 - shorter ones claim nothing
    return all(
        (numbers := _CITATION.findall(sentence)) and all(1 <= int(number) <= len(sources) for number in numbers)
        for sentence in sentences
    )


def _is_supported(text: str, sources: Sequence[str]) -> bool:
    """Whether every number of the answer stands in some source: the claims that are checked without a model."""
    known = {number for source in sources for number in _NUMBER.findall(source)}
    return all(number in known for number in _NUMBER.findall(_CITATION.sub("", text)))
