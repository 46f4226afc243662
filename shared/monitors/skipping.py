"""Prose that cannot hold the beginning of a match, jumped over at the speed of `re`.

Most patterns for data want a character that prose has seldom: a digit, an at sign. A match reaches back from it no
further than over characters the pattern may take before it; words without it need no automaton.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

from shared.monitors.charset import CharSet
from shared.monitors.folding import invisible
from shared.monitors.pattern import Program

WORTHWHILE: Final = 16  # characters left; for fewer the automaton is as fast
_SIGNS: Final = " \t\r\n.,;!?'\"()-"
_EXTENDED: Final = [chr(code) for code in (*range(0xC0, 0x180), *range(0x2018, 0x2020), 0x2026)]
_ASCII: Final = (string.ascii_letters, string.ascii_lowercase)


def skipper(programs: Sequence[Program]) -> re.Pattern[str] | None:
    """What may be jumped over where nothing has begun; None when the patterns take whatever prose is made of."""
    if not programs:
        return None
    for letters in _ASCII:
        common = frozenset(one for one in (*letters, *_SIGNS, *_EXTENDED) if not invisible(one))
        taken = _taken_before_the_rare(programs, common)
        apart = [one for one in common if taken is not None and one not in taken]
        if taken is not None and {" ", "\n"} <= set(apart):
            words = f"[{_escaped(taken)}]*+" if taken else ""
            return re.compile(f"(?:{words}[{_escaped(apart)}]++)*+")
    return None


def _taken_before_the_rare(programs: Sequence[Program], common: frozenset[str]) -> frozenset[str] | None:
    """The common characters a match may begin with, up to its first rare one. None when it may end before that."""
    taken: set[str] = set()
    for program in programs:
        seen, waiting = {program.start}, [program.start]
        while waiting:
            at = waiting.pop()
            following = [*program.empty[at], *(target for _, target in program.looks[at])]
            for charset, target in program.takes[at]:
                found = _common(charset) & common
                taken.update(found)
                following += [target] if found else []
            new = [one for one in following if one not in seen]
            seen.update(new)
            waiting += new
        if program.end in seen:
            return None
    return frozenset(taken)


@lru_cache(maxsize=8192)
def _common(charset: CharSet) -> frozenset[str]:
    return frozenset(one for one in (*string.ascii_letters, *_SIGNS, *_EXTENDED) if one in charset)


def _escaped(characters: Iterable[str]) -> str:
    return "".join(map(re.escape, sorted(characters)))
