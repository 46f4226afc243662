"""JSON Schemas that callers give: checked and applied without reaching out, and with a bound on the work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Final

import regex
from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import SchemaError, ValidationError, best_match
from referencing import Registry as References
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from services.tools.store import Schema
from shared.errors import InvalidArgument

_MAX_CHECKS: Final = 20_000
# What is checked at once; what takes longer is checked in a thread, so that nobody else waits for it.
_AT_ONCE: Final = 200
_MAX_SECONDS: Final = 2.0
_MAX_UNIQUE: Final = 1_000
_PATTERN_SECONDS: Final = 0.1
_UNTELLABLE: Final = ("", "checking this against the schema takes too much work")
_checks: ContextVar[_Budget] = ContextVar("checks")

Keyword = Callable[[Any, Any, Any, Any], Iterator[ValidationError]]


class _Budget:
    """How much work is left."""

    def __init__(self, checks: int) -> None:
        self._left = checks
        self._until = time.monotonic() + _MAX_SECONDS

    def take(self) -> None:
        self._left -= 1
        if self._left < 0 or time.monotonic() > self._until:
            raise _TooMuchWork


class _TooMuchWork(Exception):
    """The schema asks for more than a call may cost."""


def check(schema: Schema, field: str) -> None:
    """Raises InvalidArgument unless it is a JSON Schema that refers to nothing outside itself."""
    try:
        Draft202012Validator.check_schema(schema)
        root = References().with_resource("", DRAFT202012.create_resource(dict(schema))).resolver()
        for key, value in _strings(schema):
            if key in ("$ref", "$dynamicRef"):
                _check_reference(value, field)
                root.lookup(value)
            elif key == "pattern":
                regex.compile(value)
        if problem(schema, {}) == _UNTELLABLE:
            raise InvalidArgument(f"{field} takes too much work to check against", field=field)
    except (SchemaError, Unresolvable, regex.error) as error:
        raise InvalidArgument(f"{field} is not a JSON Schema: {error}".partition("\n")[0][:500], field=field) from None


async def told(schema: Schema, value: object) -> tuple[str, str] | None:
    """As `problem`, without keeping others waiting."""
    found = problem(schema, value, most=_AT_ONCE)
    return await asyncio.to_thread(problem, schema, value) if found == _UNTELLABLE else found


def problem(schema: Schema, value: object, *, most: int = _MAX_CHECKS) -> tuple[str, str] | None:
    """Where and why a value does not fit, or None. What cannot be told with reasonable work does not fit."""
    token = _checks.set(_Budget(most))
    try:
        found = best_match(_Bounded(dict(schema), registry=References()).iter_errors(value))
    except (_TooMuchWork, RecursionError, Unresolvable, regex.error):
        return _UNTELLABLE
    finally:
        _checks.reset(token)
    if found is None:
        return None
    return ".".join(str(part) for part in found.absolute_path), found.message


def _strings(schema: object) -> Iterator[tuple[str, str]]:
    if isinstance(schema, Mapping):
        for key, value in schema.items():
            if isinstance(value, str):
                yield key, value
            yield from _strings(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _strings(value)


def _check_reference(target: str, field: str) -> None:
    if not target.startswith("#"):
        raise InvalidArgument(f"{field} may refer to itself only, by #..., and not to {target[:200]}", field=field)


def _counted(keyword: Keyword) -> Keyword:
    def counted(validator: Any, rule: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
        _checks.get().take()
        yield from keyword(validator, rule, value, schema) or ()

    return counted


def _pattern(_validator: Any, rule: str, value: Any, _schema: Any) -> Iterator[ValidationError]:
    if isinstance(value, str) and not _found(rule, value):
        yield ValidationError(f"{value!r} does not match {rule!r}")


def _pattern_properties(validator: Any, rule: Schema, value: Any, _schema: Any) -> Iterator[ValidationError]:
    for pattern, part in rule.items() if isinstance(value, dict) else ():
        for name in [name for name in value if _found(pattern, name)]:
            yield from validator.descend(value[name], part, path=name, schema_path=pattern)


def _unique_items(validator: Any, rule: bool, value: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(value, list) and len(value) > _MAX_UNIQUE:
        raise _TooMuchWork
    yield from Draft202012Validator.VALIDATORS["uniqueItems"](validator, rule, value, schema) or ()


def _found(pattern: str, text: str) -> bool:
    """Searches with a time limit, which the standard library's patterns do not have."""
    try:
        return regex.search(pattern, text, timeout=_PATTERN_SECONDS, concurrent=True) is not None
    except TimeoutError:
        raise _TooMuchWork from None


_OWN: Final = {"pattern": _pattern, "patternProperties": _pattern_properties, "uniqueItems": _unique_items}
_extend: Final[Callable[..., Any]] = validators.extend
_Bounded: Final = _extend(
    Draft202012Validator,
    {name: _counted(keyword) for name, keyword in (Draft202012Validator.VALIDATORS | _OWN).items()},
)
