"""The template language: places, `#if`, `#each`. Parsed once, rendered without ever reading a value as a template."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from services.inference.prompts.errors import PromptInvalid
from shared.errors import FieldTooLong

NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
RESERVED: Final = frozenset({"this", "else"})
_MAX_DEPTH: Final = 8
_MAX_TAGS: Final = 1000
_TAG: Final = re.compile(r"(?P<escaped>\\\{\{)|\{\{(?P<inside>[^{}]*)\}\}|(?P<open>\{\{)")
_WORDS: Final = re.compile(r"(?P<open>#if|#each)\s+(?P<of>\w+)|/(?P<close>if|each)|(?P<plain>\w+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Place:
    """A value of this name, or the entry of the list when it is `this`. `at` is where it stands, in characters."""

    name: str
    at: int


@dataclass(frozen=True, slots=True)
class If:
    """One of two parts."""

    name: str
    at: int
    then: tuple[Node, ...]
    otherwise: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Each:
    """A part for every entry of a list."""

    name: str
    at: int
    body: tuple[Node, ...]


Node: TypeAlias = str | Place | If | Each
Filled: TypeAlias = Mapping[str, "str | tuple[str, ...] | Truth"]


@dataclass(frozen=True, slots=True)
class Truth:
    """What a value shows as, where that alone does not tell whether `#if` takes it for true."""

    text: str
    holds: bool


@dataclass(slots=True)
class _Block:
    """A block that is still open. The outermost has no kind."""

    kind: str = ""
    name: str = ""
    at: int = 0
    nodes: list[Node] = field(default_factory=list)
    then: tuple[Node, ...] | None = None

    def closed(self) -> If | Each:
        if self.kind == "each":
            return Each(self.name, self.at, tuple(self.nodes))
        nodes = tuple(self.nodes)
        return If(self.name, self.at, nodes, ()) if self.then is None else If(self.name, self.at, self.then, nodes)


def parse(template: str, *, where: str) -> tuple[Node, ...]:
    """The template's nodes. Raises PromptInvalid with the position; `where` names the template."""
    try:
        return tuple(_read(template))
    except _Misplaced as error:
        raise invalid(error.problem, template, error.at, where=where) from None


def places(nodes: Sequence[Node]) -> Iterator[Place | If | Each]:
    """Everything that asks for a value, in reading order."""
    for node in nodes:
        match node:
            case Place():
                if node.name not in RESERVED:
                    yield node
            case If():
                yield node
                yield from places((*node.then, *node.otherwise))
            case Each():
                yield node
                yield from places(node.body)


def render(nodes: Sequence[Node], values: Filled, *, limit: int) -> str:
    """The text. Every name asked for is in `values`; lists are tuples. Raises FieldTooLong past `limit` characters."""
    length, parts = 0, []
    for part in _rendered(nodes, values, ""):
        length += len(part)
        if length > limit:
            raise FieldTooLong("messages", length=length, limit=limit)
        parts.append(part)
    return "".join(parts)


def invalid(problem: str, template: str, at: int, *, where: str) -> PromptInvalid:
    """The error that names the place by line and column, both from 1."""
    line, column = template.count("\n", 0, at) + 1, at - template.rfind("\n", 0, at)
    message = f"line {line}, column {column}: {problem}"
    return PromptInvalid(message, field=where, line=str(line), column=str(column))


def _rendered(nodes: Sequence[Node], values: Filled, this: str) -> Iterator[str]:
    for node in nodes:
        match node:
            case str():
                yield node
            case Place():
                yield this if node.name == "this" else _shown(values[node.name])
            case If():
                yield from _rendered(node.then if _holds(values[node.name]) else node.otherwise, values, this)
            case Each():
                entries = values[node.name]
                for entry in entries if isinstance(entries, tuple) else ():
                    yield from _rendered(node.body, values, entry)


def _shown(value: str | tuple[str, ...] | Truth) -> str:
    match value:
        case Truth():
            return value.text
        case tuple():
            return ", ".join(value)
    return value


def _holds(value: str | tuple[str, ...] | Truth) -> bool:
    return value.holds if isinstance(value, Truth) else bool(value)


class _Misplaced(Exception):
    """What is wrong at a place, before it has a line."""

    def __init__(self, problem: str, at: int) -> None:
        super().__init__(problem)
        self.problem = problem
        self.at = at


def _read(template: str) -> list[Node]:
    blocks, end = [_Block()], 0
    for place, tag in enumerate(_TAG.finditer(template)):
        if place == _MAX_TAGS:
            raise _Misplaced(f"more than {_MAX_TAGS} places in one template", tag.start())
        blocks[-1].nodes.append(template[end : tag.start()])
        _take(tag, blocks)
        end = tag.end()
    if blocks[-1].kind:
        raise _Misplaced(f"{{{{#{blocks[-1].kind} {blocks[-1].name}}}}} is not closed", blocks[-1].at)
    return [*blocks[0].nodes, template[end:]]


def _take(tag: re.Match[str], blocks: list[_Block]) -> None:
    """Adds what one tag says to the open blocks."""
    if tag["escaped"]:
        blocks[-1].nodes.append("{{")
        return
    words, at = _words(tag), tag.start()
    if words["open"]:
        _open(words["open"][1:], words["of"], at, blocks)
    elif words["close"]:
        _close(words["close"], at, blocks)
    elif words["plain"] == "else":
        _otherwise(at, blocks)
    elif words["plain"] == "this" and not _repeating(blocks):
        raise _Misplaced("{{this}} is only inside {{#each}}", at)
    else:
        blocks[-1].nodes.append(Place(words["plain"], at))


def _words(tag: re.Match[str]) -> re.Match[str]:
    if tag["open"]:
        raise _Misplaced("{{ is not closed by }}; write \\{{ for plain braces", tag.start())
    words = _WORDS.fullmatch(tag["inside"].strip())
    name = words and (words["of"] or words["plain"] or words["close"])
    if words is None or name is None or not NAME.fullmatch(name):
        shown = tag["inside"].strip()[:40]
        raise _Misplaced(f"{{{{{shown}}}}} is no name, #if, else, /if, #each or /each", tag.start())
    return words


def _open(kind: str, name: str, at: int, blocks: list[_Block]) -> None:
    if name in RESERVED:
        raise _Misplaced(f"{name} is no variable", at)
    if kind == "each" and _repeating(blocks):
        raise _Misplaced("{{#each}} inside another {{#each}}", at)
    if len(blocks) > _MAX_DEPTH:
        raise _Misplaced(f"more than {_MAX_DEPTH} blocks inside each other", at)
    blocks.append(_Block(kind, name, at))


def _close(kind: str, at: int, blocks: list[_Block]) -> None:
    if blocks[-1].kind != kind:
        opened = f"{{{{#{blocks[-1].kind}}}}} is open" if blocks[-1].kind else "nothing is open"
        raise _Misplaced(f"{{{{/{kind}}}}} closes nothing: {opened}", at)
    block = blocks.pop()
    blocks[-1].nodes.append(block.closed())


def _otherwise(at: int, blocks: list[_Block]) -> None:
    if blocks[-1].kind != "if" or blocks[-1].then is not None:
        raise _Misplaced("{{else}} without its {{#if}}", at)
    blocks[-1].then, blocks[-1].nodes = tuple(blocks[-1].nodes), []


def _repeating(blocks: Sequence[_Block]) -> bool:
    return any(block.kind == "each" for block in blocks)
