"""Patterns in the language of Python's `re`, read into one automaton that takes no decision back.

What a stream cannot decide is refused: back-references, looking around further than one character, atomic groups. So is
what matches nothing at all, what grows too large, and what a backtracking engine could take exponential time over.
Matches are leftmost-longest: `a|ab` takes `ab`, lazy repeats take all they can. `$` is the end of the text.
"""

from __future__ import annotations

import re
import warnings
from re import _constants as op  # type: ignore[attr-defined] # the parser of `re` itself: private, the same in 3.11 to 3.13
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any, Final

from shared.monitors.charset import ANY, NEWLINE, NOT_NEWLINE, WORD, Assertion, CharSet, literal
from shared.monitors.folding import fold

MAX_STATES: Final = 4000
_CATEGORIES: Final = {
    op.CATEGORY_DIGIT: "digit",
    op.CATEGORY_NOT_DIGIT: "not_digit",
    op.CATEGORY_SPACE: "space",
    op.CATEGORY_NOT_SPACE: "not_space",
    op.CATEGORY_WORD: "word",
    op.CATEGORY_NOT_WORD: "not_word",
}
_REFUSED: Final = {
    op.GROUPREF: "a back-reference cannot be decided on a stream",
    op.GROUPREF_EXISTS: "a conditional group cannot be decided on a stream",
    op.ATOMIC_GROUP: "an atomic group cannot be decided on a stream",
    op.POSSESSIVE_REPEAT: "a possessive repeat cannot be decided on a stream",
}


class PatternInvalid(ValueError):
    """The pattern does not compile, or could not be enforced on a stream."""


class Program:
    """A non-deterministic automaton: steps that take a character, empty steps, and steps that only look."""

    def __init__(self) -> None:
        self.takes: list[list[tuple[CharSet, int]]] = []
        self.empty: list[list[int]] = []
        self.looks: list[list[tuple[Assertion, int]]] = []
        self.start = self.state()
        self.end = self.start

    def state(self) -> int:
        if len(self.takes) >= MAX_STATES:
            raise PatternInvalid(f"the pattern is too large: its repeats unfold into more than {MAX_STATES} states")
        self.takes.append([])
        self.empty.append([])
        self.looks.append([])
        return len(self.takes) - 1

    def take(self, at: int, charset: CharSet) -> int:
        after = self.state()
        self.takes[at].append((charset, after))
        return after

    def look(self, at: int, assertion: Assertion) -> int:
        after = self.state()
        self.looks[at].append((assertion, after))
        return after


def read(pattern: str, *, ignore_case: bool = False) -> Program:
    """The pattern's program. Raises PatternInvalid with the reason."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # `[[` is two characters here, in any Python
            parsed = parser.parse(pattern, re.IGNORECASE if ignore_case else 0)
    except (re.error, OverflowError, RecursionError) as error:
        raise PatternInvalid(str(error)) from None
    program = Program()
    last = _Reader(program).sequence(parsed, program.start, parsed.state.flags)
    program.end = program.state()  # of its own, since a repeat goes on from where it may end
    program.empty[last].append(program.end)
    if _reaches_end_without_taking(program):
        raise PatternInvalid("the pattern matches the empty text")
    return program


class _Reader:
    """Walks the tree `re` parses a pattern into."""

    def __init__(self, program: Program) -> None:
        self._program = program

    def sequence(self, items: Any, at: int, flags: int) -> int:
        for operation, argument in items:
            at = self._item(operation, argument, at, flags)
        return at

    def _item(self, operation: Any, argument: Any, at: int, flags: int) -> int:
        match operation:
            case op.LITERAL | op.NOT_LITERAL | op.ANY | op.IN:
                return self._program.take(at, _charset(operation, argument, flags))
            case op.SUBPATTERN:
                _, added, removed, inside = argument
                return self.sequence(inside, at, (flags | added) & ~removed)
            case op.BRANCH:
                return self._branch(argument[1], at, flags)
            case op.MAX_REPEAT | op.MIN_REPEAT:
                return self._repeat(*argument, at=at, flags=flags)
            case op.AT:
                return self._program.look(at, _place(argument, flags))
            case op.ASSERT | op.ASSERT_NOT:
                return self._program.look(at, _beside(argument, flags, negated=operation is op.ASSERT_NOT))
            case _:
                raise PatternInvalid(_REFUSED.get(operation, f"{operation} is not supported"))

    def _branch(self, branches: Any, at: int, flags: int) -> int:
        ends = [self.sequence(branch, at, flags) for branch in branches]
        after = self._program.state()
        for end in ends:
            self._program.empty[end].append(after)
        return after

    def _repeat(self, least: int, most: Any, inside: Any, *, at: int, flags: int) -> int:
        for _ in range(least):
            at = self.sequence(inside, at, flags)
        if most is op.MAXREPEAT:
            again = self._program.state()
            self._program.empty[at].append(again)
            self._program.empty[self.sequence(inside, again, flags)].append(again)
            return again
        after = self._program.state()
        for _ in range(most - least):
            self._program.empty[at].append(after)
            at = self.sequence(inside, at, flags)
        self._program.empty[at].append(after)
        return after


def _charset(operation: Any, argument: Any, flags: int) -> CharSet:
    ignore_case = bool(flags & re.IGNORECASE)
    if operation is op.ANY:
        return ANY if flags & re.DOTALL else NOT_NEWLINE
    if operation is op.IN:
        return _members(argument, ignore_case=ignore_case)
    one = literal(chr(argument), ignore_case=ignore_case)
    return one if operation is op.LITERAL else CharSet(one.literals, negated=True, ignore_case=ignore_case)


def _members(items: Any, *, ignore_case: bool) -> CharSet:
    literals: set[str] = set()
    ranges: list[tuple[str, str]] = []
    categories: set[str] = set()
    negated = False
    for kind, argument in items:
        match kind:
            case op.NEGATE:
                negated = True
            case op.LITERAL:
                literals |= {chr(argument), fold(chr(argument))}
            case op.RANGE:
                ranges.append((chr(argument[0]), chr(argument[1])))
            case _:
                categories.add(_CATEGORIES[argument])
    return CharSet(frozenset(literals), tuple(ranges), frozenset(categories), negated, ignore_case)


def _place(where: Any, flags: int) -> Assertion:
    match where:
        case op.AT_BOUNDARY | op.AT_NON_BOUNDARY:
            return Assertion(behind=WORD, ahead=WORD, negated=where is op.AT_NON_BOUNDARY)
        case op.AT_BEGINNING if flags & re.MULTILINE:
            return Assertion(behind=NEWLINE, edge=True)
        case op.AT_END if flags & re.MULTILINE:
            return Assertion(ahead=NEWLINE, edge=True)
        case op.AT_BEGINNING | op.AT_BEGINNING_STRING:
            return Assertion(behind=ANY, negated=True)
        case _:
            return Assertion(ahead=ANY, negated=True)


def _beside(argument: Any, flags: int, *, negated: bool) -> Assertion:
    direction, inside = argument
    items = list(inside)
    if len(items) != 1 or items[0][0] not in (op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN):
        raise PatternInvalid("looking ahead or behind further than one character cannot be decided on a stream")
    operation, inner = items[0]
    charset = _charset(operation, inner, flags)
    if direction < 0:
        return Assertion(behind=charset, negated=negated)
    return Assertion(ahead=charset, negated=negated)


def _reaches_end_without_taking(program: Program) -> bool:
    seen, waiting = {program.start}, [program.start]
    while waiting:
        at = waiting.pop()
        for after in (*program.empty[at], *(target for _, target in program.looks[at])):
            if after not in seen:
                seen.add(after)
                waiting.append(after)
    return program.end in seen
