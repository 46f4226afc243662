"""Reading JSON that strangers wrote: one rule for each kind of value, the field named when it breaks it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from google.api import httpbody_pb2

from services.gateway.facades.ask import Unsupported
from shared.errors import FieldRequired, InvalidArgument, Reason

T = TypeVar("T")
Object = Mapping[str, Any]


def parse(body: httpbody_pb2.HttpBody) -> Object:
    """The JSON object of a request. Raises InvalidArgument."""
    try:
        found = json.loads(body.data)
    except (ValueError, RecursionError):
        message = "the body is not JSON"
        raise InvalidArgument(message, reason=Reason.ERROR_REASON_MESSAGE_MALFORMED) from None
    if not isinstance(found, dict):
        raise InvalidArgument("the body must be a JSON object", reason=Reason.ERROR_REASON_MESSAGE_MALFORMED)
    return found


def text(data: Object, field: str, *, default: str | None = None) -> str:
    """A text; required where there is no default."""
    value = data.get(field)
    if value is None and default is not None:
        return default
    if value is None:
        raise FieldRequired(field)
    if not isinstance(value, str):
        raise InvalidArgument(f"{field} must be a string", field=field)
    return value


def number(data: Object, field: str) -> float | None:
    value = data.get(field)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InvalidArgument(f"{field} must be a number", field=field)
    return float(value)


def integer(data: Object, field: str) -> int | None:
    value = number(data, field)
    if value is None:
        return None
    if not value.is_integer() or abs(value) >= 2**63:
        raise InvalidArgument(f"{field} must be a whole number", field=field)
    return int(value)


def flag(data: Object, field: str) -> bool:
    value = data.get(field)
    if value is not None and not isinstance(value, bool):
        raise InvalidArgument(f"{field} must be true or false", field=field)
    return bool(value)


def inner(data: Object, field: str) -> Object:
    """An object; empty when it is absent."""
    value = data.get(field)
    if value is not None and not isinstance(value, dict):
        raise InvalidArgument(f"{field} must be an object", field=field)
    return value or {}


def entries(data: Object, field: str, read: Callable[[Object, str], T]) -> tuple[T, ...]:
    """Each object of a list; `read` is told where it stands."""
    return tuple(read(as_object(one, f"{field}[{n}]"), f"{field}[{n}]") for n, one in enumerate(items(data, field)))


def items(data: Object, field: str) -> Sequence[Any]:
    value = data.get(field)
    if value is not None and not isinstance(value, list):
        raise InvalidArgument(f"{field} must be a list", field=field)
    return value or []


def as_object(value: Any, place: str) -> Object:
    if not isinstance(value, dict):
        raise InvalidArgument(f"{place} must be an object", field=place)
    return value


def stops(data: Object, field: str) -> tuple[str, ...]:
    """One text or a list of them."""
    value = data.get(field) or []
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise InvalidArgument(f"{field} must be a string or a list of strings", field=field)
    return tuple(found)


def refuse(data: Object, unsupported: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuses fields that ask for what the mesh cannot do; the values listed ask for nothing."""
    for field, harmless in unsupported.items():
        if data.get(field) is not None and data[field] not in harmless:
            raise Unsupported(field, "is not supported by this mesh")
