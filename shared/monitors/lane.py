"""One automaton's place in one stream: which match comes first, and from where on nothing is sure yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from shared.monitors.automaton import Automaton, Move, State
from shared.monitors.skipping import WORTHWHILE

Valid = Callable[[int, int, int], bool]
_NOWHERE: Final = -1


class Match(NamedTuple):
    """A pattern's match, in characters from the start of the stream."""

    pattern: int
    start: int
    end: int


class FirstMatch:
    """Finds matches one after another: the leftmost, of those the longest, of those the first listed.

    `valid` may refuse what a pattern found: a number whose check digit is wrong is no match.
    """

    def __init__(self, automaton: Automaton, valid: Valid) -> None:
        self._automaton = automaton
        self._valid = valid
        self._state = automaton.root(None)
        self._starts: list[int] = []
        self._best: Match | None = None
        self.at = 0

    @property
    def unsure_from(self) -> int:
        """Where what may still match begins; the end of what was looked at when nothing may."""
        unsure = self._starts[0] if self._starts else self.at
        return unsure if self._best is None else min(unsure, self._best.start)

    def look(self, text: str) -> Match | None:
        """Goes on with text that follows what was looked at (`at`); stops at the first sure match and gives it."""
        place, length, skip = 0, len(text), self._automaton.skip
        while True:
            best, starts = self._best, self._starts
            if best is not None:
                if not starts or starts[0] > best.start:
                    return best
            elif skip is not None and not starts and length - place >= WORTHWHILE:
                end = skip(text, place).end()  # type: ignore[union-attr] # it matches the empty text at least
                if end != place:
                    self._state = self._automaton.root(text[end - 1])
                    self.at += end - place
                    place = end
            if place >= length:
                return None
            place += self._read(text[place:] if place else text)

    def _read(self, text: str) -> int:
        """Reads character by character until a match is sure, or nothing has begun and a jump may pay; how far."""
        state, at = self._state, self.at
        until = at + len(text) - WORTHWHILE if self._automaton.skip else _NOWHERE
        for character in text:
            at += 1
            move = state[character]
            if type(move) is State:  # quicker than isinstance, where every character comes by
                state = move
                continue
            state = move.target
            if move.simple and self._best is None:
                if move.kept is not None:
                    self._starts = [self._starts[place] for place in move.kept] if move.kept else []
                if move.fresh:
                    self._starts.append(at - 1)
                elif not self._starts and at < until:
                    break
                continue
            self._follow(move, at - 1)
            best = self._best
            if best is not None and (not self._starts or self._starts[0] > best.start):
                break
        read = at - self.at
        self._state, self.at = state, at
        return read

    def end(self) -> Match | None:
        """The match that is first when nothing more comes."""
        if self._starts:
            self._offer(self._automaton.ending(self._state), self.at)
        return self._best

    def resume(self, at: int, before: str | None) -> None:
        """Forgets everything and goes on at a place, the character before which is given."""
        self._state, self._starts, self._best, self.at = self._automaton.root(before), [], None, at

    def _follow(self, move: Move, at: int) -> None:
        if move.late:
            self._offer(move.late, at)
        starts = self._starts if move.kept is None else [self._starts[place] for place in move.kept]
        if move.fresh:
            starts = [*starts, at]
        self._starts = starts
        if move.now:
            self._offer(move.now, at + 1)
        if move.live is not None:
            self._starts = [starts[place] for place in move.live]

    def _offer(self, found: Sequence[tuple[int, int]], end: int) -> None:
        """Takes the best of what matched. All that are offered together end at the same place."""
        best, starts = self._best, self._starts
        for place, pattern in found:
            start = starts[place]
            if best is not None and (best.start, -best.end, best.pattern) <= (start, -end, pattern):
                continue
            if self._valid(pattern, start, end):
                best = self._best = Match(pattern, start, end)


class EveryMatch:
    """Finds each pattern's matches, leftmost and longest, claiming no text: patterns do not hide each other."""

    def __init__(self, automaton: Automaton, valid: Valid) -> None:
        self._automaton = automaton
        self._valid = valid
        self._state = automaton.root(None)
        self._starts: list[int] = []
        self._open: dict[int, Match] = {}
        self._done: dict[int, int] = {}
        self._at = 0

    @property
    def unsure_from(self) -> int:
        """Where the oldest unfinished match began; the end of what was looked at without one."""
        places = self._starts[:1] + [match.start for match in self._open.values()]
        return min(places, default=self._at)

    def look(self, text: str) -> list[Match]:
        """The matches that became sure."""
        state = self._state
        found: list[Match] = []
        for at, character in enumerate(text, start=self._at):
            move = state[character]
            if isinstance(move, State):
                state = move
                continue
            state = move.target
            self._follow(move, at)
            if self._open:
                found += self._closed(self._starts[0] if self._starts else at + 1)
        self._state, self._at = state, self._at + len(text)
        return found

    def end(self) -> list[Match]:
        """The matches left when nothing more comes."""
        self._offer(self._automaton.ending(self._state), self._at)
        self._starts = []
        return self._closed(self._at + 1)

    def _follow(self, move: Move, at: int) -> None:
        self._offer(move.late, at)
        starts = self._starts if move.kept is None else [self._starts[place] for place in move.kept]
        if move.fresh:
            starts = [*starts, at]
        self._starts = starts
        self._offer(move.now, at + 1)
        if move.live is not None:
            self._starts = [starts[place] for place in move.live]

    def _offer(self, found: Sequence[tuple[int, int]], end: int) -> None:
        for place, pattern in found:
            match = Match(pattern, self._starts[place], end)
            known = self._open.get(pattern)
            if match.start < self._done.get(pattern, _NOWHERE) or (known and match.start > known.start):
                continue
            if self._valid(pattern, match.start, end):
                self._open[pattern] = match

    def _closed(self, oldest: int) -> list[Match]:
        """Those no unfinished match could still replace."""
        sure = [match for match in self._open.values() if match.start < oldest]
        for match in sure:
            del self._open[match.pattern]
            self._done[match.pattern] = match.end
        return sorted(sure, key=_rank)


def _rank(match: Match) -> tuple[int, int, int]:
    return match.start, -match.end, match.pattern
