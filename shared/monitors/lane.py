"""One automaton's place in one stream: which match comes first, and from where on nothing is sure yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from shared.monitors.automaton import Automaton, Begin, Move, State
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
        self._crossed = False
        self._automaton = automaton
        self._valid = valid
        self._state = automaton.roots[None]
        self._starts: list[int] = []
        self._best: Match | None = None
        self.at = 0

    @property
    def unsure_from(self) -> int:
        """Where what may still match begins; the end of what was looked at when nothing may."""
        unsure = self._starts[0] if self._starts else self.at
        return unsure if self._best is None else min(unsure, self._best.start)

    def look(self, text: str) -> Match | None:  # noqa: C901, PLR0912 - one loop: a call costs more than a character
        """Goes on with text that follows what was looked at (`at`); stops at the first sure match and gives it."""
        state, at, starts, best = self._state, self.at, self._starts, self._best
        skip, base, end = self._automaton.skip, at, at + len(text)
        until = end - WORTHWHILE if skip else _NOWHERE
        while True:
            if best is not None:
                if not starts or starts[0] > best.start:
                    break
            elif at <= until and not starts:
                prose = skip(text, at - base).end() + base  # type: ignore[misc, union-attr] # it matches nothing at least
                if prose != at:
                    state, at = self._automaton.roots[text[prose - base - 1]], prose
            if at >= end:
                break
            for character in text[at - base :] if at > base else text:
                at += 1
                move = state[character]
                if type(move) is State:  # quicker than isinstance, where every character comes by
                    state = move
                    continue
                state = move.target
                if type(move) is Begin:
                    starts.append(at - 1)
                    continue
                if move.late:
                    best = self._offered(move.late, at - 1, starts, best)
                if move.kept is not None:
                    starts = [starts[place] for place in move.kept] if move.kept else []
                if move.fresh:
                    starts.append(at - 1)
                if move.now:
                    best = self._offered(move.now, at, starts, best)
                if move.live is not None:
                    starts = [starts[place] for place in move.live] if move.live else []
                if best is None:
                    if at < until and not starts:
                        break
                elif not starts or starts[0] > best.start:
                    break
        self._state, self.at, self._starts, self._best = state, at, starts, best
        return best if best is not None and (not starts or starts[0] > best.start) else None

    def stands_alone(self, match: Match) -> bool:
        """Whether no other match begins, or may have begun, within the one that was found."""
        return not self._crossed and (not self._starts or self._starts[0] >= match.end)

    def end(self) -> Match | None:
        """The match that is first when nothing more comes."""
        if self._starts:
            self._best = self._offered(self._automaton.ending(self._state), self.at, self._starts, self._best)
        return self._best

    def resume(self, at: int, before: str | None) -> None:
        """Forgets everything and goes on at a place, the character before which is given."""
        self._state, self._starts, self._best, self.at = self._automaton.roots[before], [], None, at
        self._crossed = False

    def _offered(
        self, found: Sequence[tuple[int, int]], end: int, starts: list[int], best: Match | None
    ) -> Match | None:
        """The best of what matched. All that are offered together end at the same place."""
        for place, pattern in found:
            start = starts[place]
            if best is not None:
                first, known, until = best
                self._crossed = self._crossed or start != known or pattern != first
                if known < start or (known == start and (until > end or (until == end and first <= pattern))):
                    continue
            if self._valid(pattern, start, end):
                best = Match(pattern, start, end)
        return best


class Reach:
    """How far a claim goes: to the end of the last match of another rule that begins within it, and within what that
    adds; until a rule that stops matches there.

    `owners` says whose each pattern is; the first `stops` patterns are those of rules that stop.
    """

    def __init__(self, automaton: Automaton, valid: Valid, owners: Sequence[int], stops: int) -> None:
        self._automaton = automaton
        self._valid = valid
        self._owners = owners
        self._stops = stops

    def begin(self, claim: Match, before: str | None) -> None:
        """From where the claim begins, the character before which is given."""
        self._state: State = self._automaton.roots[before]
        self._starts: list[int] = []
        self._owner = self._owners[claim.pattern]
        self.at, self.end = claim.start, claim.end
        self.found: list[Match] = []
        self.stop: Match | None = None

    @property
    def sure(self) -> bool:
        """Whether nothing that is still to come changes it."""
        return self.stop is not None or (self.at >= self.end and not (self._starts and self._starts[0] < self.end))

    def look(self, text: str) -> None:
        """Goes on with text that follows what was looked at (`at`), as far as needed."""
        for character in text:
            if self.sure:
                return
            move, self.at = self._state[character], self.at + 1
            if isinstance(move, State):
                self._state = move
                continue
            self._state = move.target
            self._take(move.late, self.at - 1)
            starts = self._starts if move.kept is None else [self._starts[place] for place in move.kept]
            self._starts = [*starts, self.at - 1] if move.fresh else starts
            self._take(move.now, self.at)
            if move.live is not None:
                self._starts = [self._starts[place] for place in move.live]

    def finish(self) -> None:
        """Nothing more comes."""
        self._take(self._automaton.ending(self._state), self.at)
        self._starts = []

    def _take(self, ended: Sequence[tuple[int, int]], end: int) -> None:
        for place, pattern in ended:
            start = self._starts[place]
            goes_on = end > self.end and self._owners[pattern] != self._owner
            if start < self.end and (pattern < self._stops or goes_on) and self._valid(pattern, start, end):
                match = Match(pattern, start, end)
                if pattern < self._stops:
                    self.stop = self.stop or match
                else:
                    self.end = end
                    self.found.append(match)


class EveryMatch:
    """Finds each pattern's matches, leftmost and longest, claiming no text: patterns do not hide each other."""

    def __init__(self, automaton: Automaton, valid: Valid) -> None:
        self._automaton = automaton
        self._valid = valid
        self._state = automaton.roots[None]
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
