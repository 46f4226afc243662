"""Suite documents: YAML or JSON text into a suite, with the line of what is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, Final, get_args

import yaml
from pydantic import TypeAdapter, ValidationError

from services.orchestrator.errors import SuiteInvalid
from services.orchestrator.evaluation.suite import MAX_CASES, Criterion, Suite

Path = tuple[str | int, ...]
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's where the wheel has it: twenty times as fast
_MAX_DEPTH: Final = 16
_SUITE: Final = TypeAdapter(Suite)
_DUMP: Final = TypeAdapter(Any)
# pydantic puts the branch of a union into the place of a fault; no document has it there.
_TYPES: Final = frozenset(
    field.default for kind in get_args(Criterion) for field in fields(kind) if field.name == "type"
)

_WORDS: Final = {"tuple_type": "a list is wanted", "dataclass_type": "a mapping is wanted"}


def read(document: str) -> Suite:
    """The suite a text describes. Raises SuiteInvalid with the line and the path of the first fault."""
    lines = dict(_lines(_tree(document), ()))
    return parsed(_plain(document), lines)


def parsed(data: Any, lines: dict[Path, int] | None = None) -> Suite:
    """The suite plain data describes. Raises SuiteInvalid."""
    try:
        suite = _SUITE.validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        message = _WORDS.get(first["type"]) or first["msg"].removeprefix("Value error, ")
        raise _invalid(message, lines, first["loc"]) from None
    check_size(suite)
    return suite


def check_size(suite: Suite) -> None:
    """Raises SuiteInvalid when a run would have too many cases."""
    cases = sum(scenario.repeats or 1 for scenario in suite.scenarios)
    if cases > MAX_CASES:
        raise _invalid(f"{cases} cases are more than the {MAX_CASES} one run may have", None, ("scenarios",))


def written(suite: Suite) -> str:
    """The suite as a document that `read` reads."""
    return json.dumps(_DUMP.dump_python(suite, mode="json", exclude_none=True))


def _tree(document: str) -> yaml.Node:
    try:
        depth = 0
        for event in yaml.parse(document, _Loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent):
                raise _invalid("aliases are not allowed; write the value out", {(): _line(event)}, ())
            if depth > _MAX_DEPTH:
                raise _invalid("the document is nested too deeply", {(): _line(event)}, ())
        tree: yaml.Node | None = yaml.compose(document, _Loader)
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        raise _invalid("the document is not YAML or JSON", {(): mark.line + 1 if mark else 1}, ()) from None
    if tree is None:
        raise _invalid("the document is empty", {(): 1}, ())
    return tree


def _plain(document: str) -> Any:
    """The data of a document that parses: a tag nobody knows, or a date that does not exist, shows only here."""
    try:
        return yaml.load(document, _Loader)  # noqa: S506 - a safe loader
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        raise _invalid("a value is not plain data", {(): mark.line + 1 if mark else 1}, ()) from None


def _lines(node: yaml.Node, path: Path) -> Iterator[tuple[Path, int]]:
    """The line of every part. Raises SuiteInvalid for a key that is there twice."""
    yield path, _line(node)
    if isinstance(node, yaml.SequenceNode):
        for place, entry in enumerate(node.value):
            yield from _lines(entry, (*path, place))
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, entry in node.value:
            name = str(key.value)
            if name in seen:
                raise _invalid(f"{name} is there twice", {(): _line(key)}, (*path, name))
            seen.add(name)
            yield from _lines(entry, (*path, name))


def _line(part: yaml.Event | yaml.Node) -> int:
    return part.start_mark.line + 1 if part.start_mark else 1


def _invalid(message: str, lines: dict[Path, int] | None, place: Path) -> SuiteInvalid:
    """The nearest part of the place that the text has names the line: a missing key has none of its own."""
    place = tuple(part for part in place if part not in _TYPES)
    path = _written(place)
    error = SuiteInvalid(f"{message} at {path}"[:1000] if path else message[:1000], field="suite", path=path)
    if lines:
        while place not in lines:
            place = place[:-1]
        error.facts["line"] = str(lines[place])
    return error


def _written(place: Path) -> str:
    """`scenarios[0].topic`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
