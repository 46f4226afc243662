"""Sets of characters, and what may be asked of the characters beside a place."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from shared.monitors.folding import fold


@dataclass(frozen=True, slots=True)
class CharSet:
    """The characters one step of a pattern takes. A look-alike is in the set when what it looks like is."""

    literals: frozenset[str] = frozenset()
    ranges: tuple[tuple[str, str], ...] = ()
    categories: frozenset[str] = frozenset()
    negated: bool = False
    ignore_case: bool = False

    def __contains__(self, character: str) -> bool:
        forms = {character, fold(character)}
        if self.ignore_case:
            forms |= {form.lower() for form in forms} | {form.upper() for form in forms}
        return any(self._holds(form) for form in forms) != self.negated

    def samples(self) -> set[str]:
        """Characters enough to tell this set from any other made of the same parts."""
        ends = {end for pair in self.ranges for end in pair}
        return set(self.literals) | ends

    def _holds(self, form: str) -> bool:
        return (
            form in self.literals
            or any(low <= form <= high for low, high in self.ranges)
            or any(_in_category(form, category) for category in self.categories)
        )


WORD = CharSet(categories=frozenset({"word"}))
NEWLINE = CharSet(literals=frozenset("\n"))
ANY = CharSet(negated=True)
NOT_NEWLINE = CharSet(literals=frozenset("\n"), negated=True)


def literal(character: str, *, ignore_case: bool) -> CharSet:
    """One character, and those that look like it."""
    return CharSet(literals=frozenset({character, fold(character)}), ignore_case=ignore_case)


@lru_cache(maxsize=16_384)
def within(charset: CharSet, characters: frozenset[str]) -> frozenset[str]:
    """Which of the characters the set takes."""
    return frozenset(one for one in characters if one in charset)


def in_brackets(characters: Iterable[str]) -> str:
    """The characters as they stand between the brackets of an expression of `re`."""
    return "".join(map(re.escape, sorted(characters)))


def _in_category(form: str, category: str) -> bool:
    match category:
        case "digit":
            return form.isdecimal()
        case "space":
            return form.isspace()
        case "word":
            return form.isalnum() or form == "_"
        case _:
            return not _in_category(form, category.removeprefix("not_"))


@dataclass(frozen=True, slots=True)
class Assertion:
    """What must hold at a place without taking a character. None as a character is the edge of the text."""

    behind: CharSet | None = None
    ahead: CharSet | None = None
    negated: bool = False
    edge: bool = False

    def holds(self, before: str | None, after: str | None) -> bool:
        """`edge` says whether the edge of the text counts as in the set. With both sets, their answers must differ."""
        answers = [
            self.edge if beside is None else beside in charset
            for charset, beside in ((self.behind, before), (self.ahead, after))
            if charset is not None
        ]
        if len(answers) == 1:
            return answers[0] != self.negated
        return (answers[0] != answers[1]) != self.negated
