"""Checks that every convert.py needs: one rule, one message, the field named."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Final

from google.protobuf import json_format, struct_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from shared.errors import FieldRequired, FieldTooLong, InvalidArgument

_LONGEST_SECONDS: Final = 315_576_000_000  # what a Duration holds by its own rules
NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
VERSION: Final = re.compile(r"(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})")


def required(value: str, field: str, *, limit: int) -> str:
    """A text that must be there (more than white space) and fit."""
    if not value.strip():
        raise FieldRequired(field)
    return text(value, field, limit=limit)


def text(value: str, field: str, *, limit: int) -> str:
    """A text that must fit."""
    if len(value) > limit:
        raise FieldTooLong(field, length=len(value), limit=limit)
    if "\x00" in value:
        raise InvalidArgument(f"{field} must not hold the character U+0000", field=field)
    return value


def matching(value: str, field: str, pattern: re.Pattern[str], *, form: str) -> str:
    """A text of a form, which the error names."""
    if not value:
        raise FieldRequired(field)
    if not pattern.fullmatch(value):
        raise InvalidArgument(f"{field} must be {form}", field=field)
    return value


def identifier(value: str, field: str) -> str:
    """An opaque id."""
    return matching(value, field, ID, form="letters, digits, _ and -, at most 64 characters")


def request_id(value: str) -> str | None:
    """A request_id, or none."""
    return text(value, "request_id", limit=64) or None


def within(value: float, field: str, *, low: float, high: float) -> float:
    """A number in a closed interval."""
    if not low <= value <= high:
        raise InvalidArgument(f"{field} must be from {low:.16g} to {high:.16g}", field=field)
    return value


def at_most(count: int, field: str, *, limit: int) -> int:
    """How many entries a list may have."""
    if count > limit:
        raise FieldTooLong(field, length=count, limit=limit, unit="entries")
    return count


def mapping(value: struct_pb2.Struct, field: str, *, limit: int = 16_384) -> dict[str, object]:
    """A Struct as plain JSON data, which jsonb can hold; whole numbers become ints."""
    if not value.fields:
        return {}
    try:
        data: dict[str, object] = json_format.MessageToDict(value)
    except ValueError:
        raise InvalidArgument(f"{field} must not hold NaN or Infinity, which JSON has not", field=field) from None
    if _holds_nul(data):
        raise InvalidArgument(f"{field} must not hold the character U+0000", field=field)
    whole = {key: _whole(entry) for key, entry in data.items()}
    size = len(json.dumps(whole))
    if size > limit:
        raise FieldTooLong(field, length=size, limit=limit, unit="characters of JSON")
    return whole


def instant(value: Timestamp, field: str) -> datetime:
    """An instant of the years 1 to 9999, in UTC."""
    try:
        return value.ToDatetime(UTC)
    except (ValueError, OverflowError):
        raise InvalidArgument(f"{field} must be an instant of the years 1 to 9999", field=field) from None


def span(value: Duration, field: str) -> timedelta:
    """A span of time, of either sign and at most 10,000 years."""
    if abs(value.seconds) > _LONGEST_SECONDS:
        raise InvalidArgument(f"{field} must be at most 10,000 years", field=field)
    return value.ToTimedelta()


def _holds_nul(value: object) -> bool:
    match value:
        case str():
            return "\x00" in value
        case dict():
            return any(_holds_nul(part) for part in (*value, *value.values()))
        case list():
            return any(_holds_nul(part) for part in value)
    return False


def _whole(value: object) -> object:
    match value:
        case float() if value.is_integer():
            return int(value)
        case dict():
            return {key: _whole(entry) for key, entry in value.items()}
        case list():
            return [_whole(entry) for entry in value]
        case _:
            return value


def struct(value: dict[str, object] | None) -> struct_pb2.Struct:
    """Plain JSON data as a Struct."""
    if not value:
        return struct_pb2.Struct()
    return json_format.ParseDict(value, struct_pb2.Struct())
