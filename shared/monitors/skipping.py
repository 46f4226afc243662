"""Prose that cannot hold the beginning of a match, jumped over at the speed of `re`.

Most patterns for data want a character that prose has seldom: a digit, an at sign. A match reaches back from it no
further than over characters the pattern may take before it; words without it need no automaton. Patterns that prose can
match, such as words, begin with letters that few words begin with (`beginnings.py`).
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import Final

from shared.monitors.beginnings import Beginnings
from shared.monitors.charset import in_brackets, within
from shared.monitors.folding import invisible
from shared.monitors.pattern import Program

WORTHWHILE: Final = 16  # characters left; for fewer the automaton is as fast
_SIGNS: Final = " \t\r\n.,;!?'\"()[]{}<>|/\\`*#$&=~^-"
_EXTENDED: Final = [chr(code) for code in (0xB7, *range(0xC0, 0x180), 0x2013, 0x2014, *range(0x2018, 0x2020), 0x2022)]
_BLANK: Final = frozenset(" \n")  # what parts words, so that jumping gets on
_ASCII: Final = (string.ascii_letters, string.ascii_lowercase)


def skipper(programs: Sequence[Program]) -> re.Pattern[str] | None:
    """What may be jumped over where nothing has begun; None when the patterns take whatever prose is made of."""
    if not programs:
        return None
    for letters in _ASCII:
        common = frozenset(one for one in (*letters, *_SIGNS, *_EXTENDED) if not invisible(one))
        if found := _skipper(programs, common):
            return found
    return None


def _skipper(programs: Sequence[Program], common: frozenset[str]) -> re.Pattern[str] | None:
    taken: set[str] = set()
    wordy: list[Program] = []
    for program in programs:
        before = _taken_before_the_rare(program, common)
        if before is None or not _BLANK.isdisjoint(before):
            wordy.append(program)
        else:
            taken |= before
    if not wordy:
        words = f"[{in_brackets(taken)}]*+" if taken else ""
        return re.compile(f"(?:{words}[{in_brackets(common - taken)}]++)*+")
    first = Beginnings(wordy, common)
    return None if first.many else re.compile(_among_words(first, taken, common))


def _among_words(first: Beginnings, taken: set[str], common: frozenset[str]) -> str:
    """Whole words and signs at which no match of prose may begin, up to a character that ends a match of data."""
    letters = frozenset(one for one in common if one.isalpha())
    word = first.of_words() + _run(letters, first)
    kept, apart = frozenset(taken) - letters, common - taken - letters
    more = f"(?:{first.anywhere(kept)}[{in_brackets(kept)}]{word})*+" if kept else ""
    return f"(?:{word}{more}(?=[{in_brackets(apart)}]){_run(apart, first)})*+"


def _run(characters: frozenset[str], first: Beginnings) -> str:
    """As many of these characters as there are before one that a match may begin with wherever it stands."""
    asked = characters & first.anywhere_with
    sure = f"[{in_brackets(characters - asked)}]*+" if characters - asked else ""
    return f"{sure}(?:{first.anywhere(asked)}[{in_brackets(asked)}]{sure})*+" if asked else sure


def _taken_before_the_rare(program: Program, common: frozenset[str]) -> set[str] | None:
    """The common characters a match may begin with, up to its first rare one. None when it may end before that."""
    taken: set[str] = set()
    seen, waiting = {program.start}, [program.start]
    while waiting:
        at = waiting.pop()
        following = [*program.empty[at], *(target for _, target in program.looks[at])]
        for charset, target in program.takes[at]:
            found = within(charset, common)
            taken.update(found)
            following += [target] if found else []
        new = [one for one in following if one not in seen]
        seen.update(new)
        waiting += new
    return None if program.end in seen else taken
