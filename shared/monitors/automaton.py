"""All patterns at once, character by character: where each match that may still come began, and which have come.

A state is what remains possible: groups of pattern positions, one group for each place a match may have begun, the
oldest first. A position stays with the oldest start that reaches it, so the number of starts is bounded. States are
made when a text first needs them and found again after that: a character usually costs one look-up, however many
patterns there are.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Final, final

from shared.monitors.charset import Assertion, CharSet
from shared.monitors.folding import invisible
from shared.monitors.pattern import Program
from shared.monitors.skipping import skipper

MAX_STATES: Final = 8_000
MOST_STARTS: Final = 64
_EXISTS: Final = 1  # the bit of `before` that says there is a character before
_Group = frozenset[int]


@final
class State(dict[str, "State | Move"]):
    """What may still become a match. As a mapping it says what characters do: most lead to another state and change
    neither starts nor matches, the others are moves. What was never asked is worked out.
    """

    __slots__ = ("automaton", "before", "by_kind", "ending", "groups")

    def __init__(self, automaton: Automaton, groups: tuple[_Group, ...], before: int) -> None:
        super().__init__()
        self.automaton = automaton
        self.groups = groups
        self.before = before
        self.by_kind: dict[int, Move] = {}
        self.ending: tuple[tuple[int, int], ...] | None = None

    def __missing__(self, character: str) -> State | Move:
        found = self[character] = self.automaton.step(self, character)
        return found


@dataclass(frozen=True, slots=True)
class Move:
    """What a character does. `late` are matches that ended before it, by start before the move; `now` those that end
    with it, by start after it; both as (place in the list of starts, pattern). In between, `kept` are the starts that
    go on, None for all, and `fresh` adds the character's own. At last only `live` stay, None for all: the others have
    matched.
    """

    target: State
    late: tuple[tuple[int, int], ...] = ()
    kept: tuple[int, ...] | None = None
    fresh: bool = False
    now: tuple[tuple[int, int], ...] = ()
    live: tuple[int, ...] | None = None


@final
class Begin(Move):
    """Where a match may begin, and nothing else happens."""


@final
class _Roots(dict[str | None, State]):
    """The states in which nothing has begun, by the character before."""

    __slots__ = ("_automaton",)

    def __init__(self, automaton: Automaton) -> None:
        super().__init__()
        self._automaton = automaton

    def __missing__(self, before: str | None) -> State:
        found = self[before] = self._automaton.root(before)
        return found


@dataclass(frozen=True, slots=True)
class _Look:
    """An assertion, by numbers of character sets."""

    behind: int | None
    ahead: int | None
    negated: bool
    edge: bool

    def holds(self, before: int, after: int | None) -> bool:
        answers = []
        if self.behind is not None:
            answers.append(bool(before >> self.behind & 1) if before & _EXISTS else self.edge)
        if self.ahead is not None:
            answers.append(self.edge if after is None else bool(after >> self.ahead & 1))
        if len(answers) == 1:
            return answers[0] != self.negated
        return (answers[0] != answers[1]) != self.negated


class Automaton:
    """The patterns of some rules; a match says which by its place in the list.

    Patterns in `checked` have someone else look at what they find. A match that is refused must not have hidden another
    one, so their positions are kept for every start.
    """

    def __init__(self, programs: Sequence[Program], checked: Container[int] = ()) -> None:
        prose = skipper(programs)
        self.skip = prose and prose.match
        self._apart: set[int] = set()
        self._sets: dict[CharSet, int] = {}
        self._takes: list[dict[int, tuple[int, ...]]] = []
        self._empty: list[list[int]] = []
        self._looks: list[list[tuple[_Look, int]]] = []
        self._accepts: dict[int, int] = {}
        self._behind = 0
        self._ahead = 0
        starts = [self._add(program, place, apart=place in checked) for place, program in enumerate(programs)]
        self._accepting = frozenset(self._accepts)
        self._looking = frozenset(place for place, looks in enumerate(self._looks) if looks)
        self._all_sets = list(self._sets)
        self._kinds: dict[str, int] = {}
        self._closures: dict[int, _Group] = {}
        self._first = frozenset().union(*(self._closure(start) for start in starts)) if starts else frozenset()
        self._after: dict[tuple[_Group, int], _Group] = {}
        self._begun: dict[tuple[int, int], _Group] = {}
        self._indexes: dict[tuple[int, int], dict[int, _Group]] = {}
        self._states: dict[tuple[tuple[_Group, ...], int], State] = {}
        self.roots = _Roots(self)

    def root(self, before: str | None) -> State:
        """Nothing has begun yet; `before` is the character before, None at the start of the text."""
        return self._state((), 0 if before is None else self._as_before(self._kind(before)))

    def step(self, state: State, character: str) -> State | Move:
        """What the character does; the state remembers it."""
        if invisible(character) and not self._is_asked_for(character):
            move = Move(state)
        else:
            kind = self._kind(character)
            move = state.by_kind.get(kind) or self._move(state, kind)
            state.by_kind[kind] = move
        return move if move.kept is not None or move.fresh or move.late or move.now else move.target

    def ending(self, state: State) -> tuple[tuple[int, int], ...]:
        """The matches that the end of the text completes."""
        if state.ending is None:
            looked = [self._looked(group, state.before, None) for group in state.groups]
            state.ending = self._new_accepts(state.groups, looked)
        return state.ending

    def _move(self, state: State, kind: int) -> Move:
        looked = [self._looked(group, state.before, kind) for group in state.groups]
        late = self._new_accepts(state.groups, looked)
        reached = [self._taken(group, kind) for group in looked]
        reached.append(self._begin(state.before, kind))
        seen: set[int] = set()
        after: list[_Group] = []
        kept: list[int] = []
        for place, group in enumerate(reached):
            new = group
            if not seen.isdisjoint(group):
                apart = self._apart if len(after) < MOST_STARTS else self._accepting
                if taken := group.intersection(seen).difference(apart, self._accepting):
                    new = group.difference(taken)
            if new:
                seen |= new
                after.append(new)
                kept.append(place)
        fresh = bool(kept) and kept[-1] == len(state.groups)
        return self._shaped(after, late, tuple(kept[:-1] if fresh else kept), state, kind, fresh=fresh)

    def _shaped(
        self,
        after: list[_Group],
        late: tuple[tuple[int, int], ...],
        kept: tuple[int, ...],
        state: State,
        kind: int,
        *,
        fresh: bool,
    ) -> Move:
        accepts = self._accepts
        now = tuple(
            (place, accepts[one])
            for place, group in enumerate(after)
            if not self._accepting.isdisjoint(group)
            for one in self._accepting & group
        )
        live = [group - self._accepting for group in after] if now else after
        all_kept = kept == tuple(range(len(state.groups)))
        return (Begin if fresh and all_kept and not (late or now) else Move)(
            target=self._state(tuple(group for group in live if group), self._as_before(kind)),
            late=late,
            kept=None if all_kept else kept,
            fresh=fresh,
            now=now,
            live=None if all(live) else tuple(place for place, group in enumerate(live) if group),
        )

    def _state(self, groups: tuple[_Group, ...], before: int) -> State:
        key = (groups, before)
        found = self._states.get(key)
        if found is None:
            if len(self._states) >= MAX_STATES:  # streams keep the states they are in; the rest is made again
                self._states.clear()
                self._after.clear()
                self.roots.clear()
            found = self._states[key] = State(self, groups, before)
        return found

    def _begin(self, before: int, kind: int) -> _Group:
        """Where a match that begins with this character stands after it."""
        key = (before, kind)
        if key not in self._begun:
            index = self._beginnings(before, kind & self._ahead)
            found = (group for number, group in index.items() if kind >> number & 1)
            self._begun[key] = frozenset[int]().union(*found)
        return self._begun[key]

    def _beginnings(self, before: int, ahead: int) -> dict[int, _Group]:
        """Where matches may begin here, by the set their first character is in: there may be thousands of patterns."""
        key = (before, ahead)
        if key not in self._indexes:
            index: dict[int, set[int]] = {}
            for one in self._looked(self._first, before, ahead):
                for number, targets in self._takes[one].items():
                    index.setdefault(number, set()).update(*(self._closure(target) for target in targets))
            self._indexes[key] = {number: frozenset(group) for number, group in index.items()}
        return self._indexes[key]

    def _taken(self, group: _Group, kind: int) -> _Group:
        """Where a group stands after the character; groups come back in many states."""
        found = self._after.get((group, kind))
        if found is None:
            takes = (item for one in group for item in self._takes[one].items())
            targets = (target for number, some in takes if kind >> number & 1 for target in some)
            found = self._after[group, kind] = frozenset[int]().union(*map(self._closure, targets))
        return found

    def _looked(self, group: _Group, before: int, after: int | None) -> _Group:
        """The group with all it reaches by assertions that hold here."""
        if self._looking.isdisjoint(group):
            return group
        waiting, found = list(self._looking & group), set(group)
        while waiting:
            for look, target in self._looks[waiting.pop()]:
                if look.holds(before, after):
                    new = self._closure(target) - found
                    found |= new
                    waiting += self._looking & new
        return frozenset(found)

    def _new_accepts(self, groups: Sequence[_Group], looked: Sequence[_Group]) -> tuple[tuple[int, int], ...]:
        return tuple(
            (place, self._accepts[one])
            for place, (group, more) in enumerate(zip(groups, looked, strict=True))
            if more is not group
            for one in self._accepting & (more - group)
        )

    def _closure(self, start: int) -> _Group:
        """What empty steps reach, only states that can do more than that."""
        if start not in self._closures:
            seen, waiting = {start}, [start]
            while waiting:
                for after in self._empty[waiting.pop()]:
                    if after not in seen:
                        seen.add(after)
                        waiting.append(after)
            self._closures[start] = frozenset(
                one for one in seen if self._takes[one] or self._looks[one] or one in self._accepts
            )
        return self._closures[start]

    def _kind(self, character: str) -> int:
        """Which sets the character is in, as bits."""
        found = self._kinds.get(character)
        if found is None:
            found = sum(1 << number for number, charset in enumerate(self._all_sets, start=1) if character in charset)
            self._kinds[character] = found
        return found

    def _as_before(self, kind: int) -> int:
        return kind & self._behind | _EXISTS if self._behind else 0

    def _is_asked_for(self, character: str) -> bool:
        return any(not charset.negated and character in charset for charset in self._all_sets)

    def _number(self, charset: CharSet) -> int:
        return self._sets.setdefault(charset, len(self._sets) + 1)

    def _add(self, program: Program, place: int, *, apart: bool) -> int:
        base = len(self._takes)
        if apart:
            self._apart.update(range(base, base + len(program.takes)))
        for takes, empty, looks in zip(program.takes, program.empty, program.looks, strict=True):
            by_set: dict[int, tuple[int, ...]] = {}
            for charset, target in takes:
                number = self._number(charset)
                by_set[number] = (*by_set.get(number, ()), base + target)
            self._takes.append(by_set)
            self._empty.append([base + target for target in empty])
            self._looks.append([(self._look(assertion), base + target) for assertion, target in looks])
        self._accepts[base + program.end] = place
        return base + program.start

    def _look(self, assertion: Assertion) -> _Look:
        behind = None if assertion.behind is None else self._number(assertion.behind)
        ahead = None if assertion.ahead is None else self._number(assertion.ahead)
        if behind is not None:
            self._behind |= 1 << behind
        if ahead is not None:
            self._ahead |= 1 << ahead
        return _Look(behind, ahead, assertion.negated, assertion.edge)
