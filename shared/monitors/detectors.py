"""What a rule looks for: patterns, and checks that tell a number of a kind from any other number."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from shared.monitors import credentials, injection, pii
from shared.monitors.folding import plain
from shared.monitors.pattern import PatternInvalid, Program, read
from shared.monitors.rules import Rule, RuleType

Check = Callable[[str], bool]
_NUMBER: Final = re.compile(r"-?\d+(?:\.\d+)?")
_LIBRARIES: Final = {RuleType.PII: pii.DETECTORS, RuleType.SECRET: credentials.DETECTORS}
_UNSPACED: Final = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"  # Thai to Chinese
_WORD_APART: Final = rf"[^\W{_UNSPACED}]"
_IS_APART: Final = re.compile(_WORD_APART).fullmatch


@dataclass(frozen=True, slots=True)
class Detector:
    """One pattern of a rule. `check` has the last word on what the pattern found."""

    kind: str
    program: Program
    check: Check | None = None


def detectors(rule: Rule) -> tuple[Detector, ...]:
    """What the rule looks for. Raises PatternInvalid."""
    match rule.type:
        case RuleType.KEYWORD:
            return (_detector("keyword", _any_of(rule.keywords), ignore_case=rule.case_insensitive),)
        case RuleType.REGEX:
            return (_detector("regex", rule.pattern, ignore_case=rule.case_insensitive),)
        case RuleType.PII | RuleType.SECRET:
            return _from_library(rule)
        case RuleType.INJECTION:
            return _injection(rule)
        case RuleType.NUMERICAL_THRESHOLD if rule.pattern:
            return (_detector("number", rule.pattern, ignore_case=rule.case_insensitive, check=_out_of_bounds(rule)),)
        case _:
            return ()


def _from_library(rule: Rule) -> tuple[Detector, ...]:
    library = _LIBRARIES[rule.type]
    unknown = [kind for kind in rule.keywords if kind not in library]
    if unknown:
        raise PatternInvalid(f"{unknown[0]} is not a kind of {rule.type.value}; known: {', '.join(sorted(library))}")
    chosen = rule.keywords or tuple(kind for kind, one in library.items() if one.by_default)
    return tuple(
        _detector(kind, pattern, ignore_case=library[kind].ignore_case, check=library[kind].check)
        for kind in chosen
        for pattern in library[kind].patterns
    )


def _injection(rule: Rule) -> tuple[Detector, ...]:
    """`keywords` are the macros that may be used; any other macro is a match."""
    allowed = frozenset(rule.keywords)
    attacks = tuple(_detector(kind, pattern, ignore_case=True) for kind, pattern in injection.ATTACKS)
    macro = _detector("macro", injection.MACRO, check=lambda text: injection.macro_name(text) not in allowed)
    return (*attacks, macro)


def _out_of_bounds(rule: Rule) -> Check:
    """Whether the last number in a match is over `max` or under `min`."""
    least, most = (float(str(rule.params.get(name, edge))) for name, edge in (("min", "-inf"), ("max", "inf")))

    def check(text: str) -> bool:
        numbers = _NUMBER.findall(plain(text).replace(",", ""))
        return bool(numbers) and not least <= float(numbers[-1]) <= most

    return check


def _any_of(words: tuple[str, ...]) -> str:
    """The words, each standing alone where it begins or ends like a word of a script that writes words apart."""
    return "|".join(f"{_apart(word[:1], '<')}{re.escape(word)}{_apart(word[-1:], '')}" for word in words)


def _apart(character: str, behind: str) -> str:
    return f"(?{behind}!{_WORD_APART})" if _IS_APART(character) else ""


def _detector(kind: str, pattern: str, *, ignore_case: bool = False, check: Check | None = None) -> Detector:
    return Detector(kind, _program(pattern, ignore_case), check)


@lru_cache(maxsize=4096)
def _program(pattern: str, ignore_case: bool) -> Program:
    return read(pattern, ignore_case=ignore_case)
