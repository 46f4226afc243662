"""Patterns a backtracking engine could take exponential time over: two ways through the same repeat for the same text.

Our own automaton reads them in linear time all the same; they are refused because rules travel to other engines, and
because nobody means to write one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from shared.monitors.pattern import PatternInvalid, Program

MAX_STEPS: Final = 200_000
_PROBES: Final = frozenset("aZ09_ -.\n\té漢")


def refuse_ambiguous(program: Program) -> None:
    """Raises PatternInvalid when some text goes round a loop of the pattern in two ways."""
    follow = _Follow(program)
    for loop in _loops(follow):
        members = frozenset(loop)
        if follow.doubled(members) or _meets_itself(follow, members):
            raise PatternInvalid(
                "the pattern is catastrophic: a repeat inside a repeat can match the same text in more than one way, "
                "which takes a backtracking engine exponential time; write it so that each character has one way"
            )


class _Follow:
    """Which characters-taking steps may follow which, and in how many ways (one or more than one)."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._budget = MAX_STEPS
        steps = [(at, charset, target) for at, takes in enumerate(program.takes) for charset, target in takes]
        self.charsets = [charset for _, charset, _ in steps]
        at_state: dict[int, list[int]] = {}
        for number, (at, _, _) in enumerate(steps):
            at_state.setdefault(at, []).append(number)
        self.after: list[dict[int, int]] = [self._ways(target, at_state) for _, _, target in steps]

    def doubled(self, members: frozenset[int]) -> bool:
        return any(ways > 1 for one in members for other, ways in self.after[one].items() if other in members)

    def _ways(self, start: int, at_state: dict[int, list[int]]) -> dict[int, int]:
        ways: dict[int, int] = {}
        for state in self._paths(start, frozenset()):
            for step in at_state.get(state, ()):
                ways[step] = min(2, ways.get(step, 0) + 1)
        return ways

    def _paths(self, state: int, passed: frozenset[tuple[int, int]]) -> Iterator[int]:
        """Every way by empty steps that takes no step twice."""
        self._budget -= 1
        if self._budget < 0:
            raise PatternInvalid("the pattern is too ambiguous: optional parts can be skipped in too many ways")
        yield state
        for after in (*self._program.empty[state], *(target for _, target in self._program.looks[state])):
            if (state, after) not in passed:
                yield from self._paths(after, passed | {(state, after)})


def _loops(follow: _Follow) -> list[list[int]]:
    """Strongly connected steps, those that are loops (Tarjan, without recursion)."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    open_: set[int] = set()
    found: list[list[int]] = []
    for root in range(len(follow.after)):
        if root in index:
            continue
        work: list[tuple[int, Iterator[int]]] = [(root, iter(follow.after[root]))]
        index[root] = low[root] = len(index)
        stack.append(root)
        open_.add(root)
        while work:
            at, rest = work[-1]
            for after in rest:
                if after not in index:
                    index[after] = low[after] = len(index)
                    stack.append(after)
                    open_.add(after)
                    work.append((after, iter(follow.after[after])))
                    break
                if after in open_:
                    low[at] = min(low[at], index[after])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[at])
                if low[at] == index[at]:
                    found.append(_popped(stack, at))
                    open_.difference_update(found[-1])
    return [loop for loop in found if len(loop) > 1 or loop[0] in follow.after[loop[0]]]


def _popped(stack: list[int], last: int) -> list[int]:
    loop = [stack.pop()]
    while loop[-1] != last:
        loop.append(stack.pop())
    return loop


def _meets_itself(follow: _Follow, members: frozenset[int]) -> bool:
    """Whether two different steps of the loop, entered together, can come together again on the same text."""
    probes = _PROBES.union(*(follow.charsets[one].samples() for one in members))
    takes = {one: frozenset(probe for probe in probes if probe in follow.charsets[one]) for one in members}
    pairs: dict[tuple[int, int], set[tuple[int, int]]] = {}
    for one in members:
        for other in members:
            nexts = ((a, b) for a in follow.after[one] for b in follow.after[other] if a in members and b in members)
            pairs[one, other] = {(a, b) for a, b in nexts if takes[a] & takes[b]}
            if len(pairs) > MAX_STEPS:
                raise PatternInvalid("the pattern is too large to be checked: its repeats hold too many steps")
    parted = {pair for one in members for pair in pairs[one, one] if pair[0] != pair[1]}
    reached, waiting = set(parted), list(parted)
    while waiting:
        for pair in pairs[waiting.pop()]:
            if pair[0] == pair[1]:
                return True
            if pair not in reached:
                reached.add(pair)
                waiting.append(pair)
    return False
