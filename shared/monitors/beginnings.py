"""How matches of prose begin: the first characters of all patterns, as one expression of `re` that is quick to refuse.

It says yes wherever a match may begin and a little more often, never less: a character that is rare or not there yet
could be anything.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from typing import Final

from shared.monitors.charset import Assertion, in_brackets, within
from shared.monitors.pattern import Program

_DEPTH: Final = 3
# Of the words that three letters could begin; where more of them have to be read, jumping costs more than it saves.
_MOST: Final = 0.1
_Places = frozenset[tuple[int, int]]


class Beginnings:
    """Of programs whose matches may be made of common characters alone."""

    def __init__(self, programs: Sequence[Program], common: frozenset[str]) -> None:
        self._known = known = _Programs(programs, common)
        self._of_words: dict[str, _Places] = {}
        self._anywhere: dict[str, _Places] = {}
        letters = frozenset(one for one in common if one.isalpha())
        for number, program in enumerate(programs):
            apart = _begins_apart(program, letters)
            for one, places in known.after(frozenset({(number, program.start)}), common).items():
                kind = self._of_words if apart and one in letters else self._anywhere
                kind[one] = kind.get(one, frozenset()) | places
        self.many = known.share(self._of_words, _DEPTH) + known.share(self._anywhere, _DEPTH) > _MOST
        """Whether more words begin like a match than jumping over the others saves."""
        self.anywhere_with = frozenset(self._anywhere)
        """What matches begin with that begin within words too, or with a sign."""

    def of_words(self) -> str:
        """Refuses where a match may begin that begins only where a word begins."""
        return self._refusing(self._of_words)

    def anywhere(self, characters: frozenset[str]) -> str:
        """Refuses where a match may begin with one of these characters, wherever it stands."""
        return self._refusing({one: places for one, places in self._anywhere.items() if one in characters})

    def _refusing(self, first: dict[str, _Places]) -> str:
        return f"(?!{self._known.written(first, _DEPTH)})" if first else ""


class _Programs:
    """The programs side by side. A place is a program and a state of it."""

    def __init__(self, programs: Sequence[Program], common: frozenset[str]) -> None:
        self._programs = programs
        self._plain = frozenset(one for one in common if one.isascii())
        self._closures: dict[tuple[int, int], _Places] = {}

    def after(self, places: _Places, characters: frozenset[str]) -> dict[str, _Places]:
        """Where each of the characters leads."""
        found: dict[str, set[tuple[int, int]]] = {}
        for number, state in frozenset[tuple[int, int]]().union(*map(self._closure, places)):
            for charset, target in self._programs[number].takes[state]:
                for one in within(charset, characters):
                    found.setdefault(one, set()).add((number, target))
        return {one: frozenset(targets) for one, targets in found.items()}

    def written(self, first: dict[str, _Places], depth: int) -> str:
        """Alternatives by their first characters."""
        return "|".join(
            f"[{in_brackets(characters)}]{self._following(places, depth - 1)}"
            for places, characters in _alike(first).items()
        )

    def share(self, first: dict[str, _Places], depth: int) -> float:
        """How many of all beginnings of small letters are among these."""
        small = {one: places for one, places in first.items() if one in string.ascii_lowercase}
        return sum(
            len(characters) / len(string.ascii_lowercase) * self._share_following(places, depth - 1)
            for places, characters in _alike(small).items()
        )

    def _share_following(self, places: _Places, depth: int) -> float:
        return 1.0 if self._decided(places, depth) else self.share(self.after(places, self._plain), depth)

    def _following(self, places: _Places, depth: int) -> str:
        if self._decided(places, depth):
            return ""
        after = self.after(places, self._plain)
        if all(self._decided(one, depth - 1) for one in after.values()):
            others = self._plain.difference(after)
            return f"(?![{in_brackets(others)}])" if others else ""
        return f"(?:{self.written(after, depth)}|(?![{in_brackets(self._plain)}]))"

    def _decided(self, places: _Places, depth: int) -> bool:
        """Whether nothing more is asked: far enough, or a match may have ended."""
        return depth == 0 or any(
            (number, self._programs[number].end) in self._closure((number, state)) for number, state in places
        )

    def _closure(self, place: tuple[int, int]) -> _Places:
        """What is reached without taking a character, as if all assertions held."""
        found = self._closures.get(place)
        if found is None:
            number, start = place
            program = self._programs[number]
            seen, waiting = {start}, [start]
            while waiting:
                at = waiting.pop()
                new = {*program.empty[at], *(target for _, target in program.looks[at])} - seen
                seen |= new
                waiting += new
            found = self._closures[place] = frozenset((number, state) for state in seen)
        return found


def _begins_apart(program: Program, letters: frozenset[str]) -> bool:
    """Whether no match begins with a letter right after a letter."""
    seen, waiting = {program.start}, [program.start]
    while waiting:
        at = waiting.pop()
        if any(within(charset, letters) for charset, _ in program.takes[at]):
            return False
        open_looks = (target for assertion, target in program.looks[at] if _holds_within_words(assertion, letters))
        new = {*program.empty[at], *open_looks} - seen
        seen |= new
        waiting += new
    return True


@lru_cache(maxsize=1024)
def _holds_within_words(assertion: Assertion, letters: frozenset[str]) -> bool:
    """Such an assertion asks of a character only whether it is in a set, so one of each answer stands for all."""
    behind = {one in assertion.behind: one for one in letters} if assertion.behind else {True: "a"}
    ahead = {one in assertion.ahead: one for one in letters} if assertion.ahead else {True: "a"}
    return any(assertion.holds(before, after) for before, after in product(behind.values(), ahead.values()))


def _alike(first: dict[str, _Places]) -> dict[_Places, list[str]]:
    """The characters by where they lead."""
    found: dict[_Places, list[str]] = {}
    for one, places in first.items():
        found.setdefault(places, []).append(one)
    return found
