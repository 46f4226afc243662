"""Pages: sizes are capped, tokens are opaque and bound to the list they came from (AIP-158)."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol, TypeVar

from shared.errors import InvalidArgument, PageTokenInvalid

DEFAULT_PAGE_SIZE: Final = 50
MAX_PAGE_SIZE: Final = 500
_DIGITS: Final = 18  # what 64 bits hold
_Row = TypeVar("_Row")


class Paged(Protocol):
    """A request for one page of a list."""

    page_size: int
    page_token: str


@dataclass(frozen=True, slots=True)
class Page:
    """What a store is asked for: at most `size` rows, those after `cursor` in the list's order."""

    size: int = DEFAULT_PAGE_SIZE
    cursor: tuple[str, ...] = ()  # as it came: tokens can be forged, so stores read it by the properties below alone

    @property
    def skip(self) -> int:
        """Of a cursor that is a number, of rows to skip or of the last row seen: it; 0 for the first page.

        Raises PageTokenInvalid.
        """
        match self.cursor:
            case ():
                return 0
            case (count,) if _number(count):
                return int(count)
        raise PageTokenInvalid

    @property
    def row(self) -> str:
        """Of a cursor that is the id of the last row seen: it; empty for the first page. Raises PageTokenInvalid."""
        match self.cursor:
            case ():
                return ""
            case (row_id,):
                return row_id
        raise PageTokenInvalid

    @property
    def place(self) -> tuple[datetime | None, str]:
        """Of a cursor that is the time and id of the last row seen: these. Raises PageTokenInvalid."""
        match self.cursor:
            case ():
                return None, ""
            case (at, row_id) if when := _instant(at):
                return when, row_id
        raise PageTokenInvalid


def page(page_size: int, page_token: str, *, scope: str) -> Page:
    """Parses a request's paging fields. `scope` names the list with its filters, so that tokens fit only it."""
    if page_size < 0:
        raise InvalidArgument("page_size must not be negative", field="page_size")
    return Page(size=min(page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE), cursor=_decode(page_token, scope))


def paged(
    found: Sequence[_Row], request: Paged, *, scope: str, name: Callable[[_Row], str]
) -> tuple[Sequence[_Row], str]:
    """One page of a list that is short enough to be read whole, and the token of the next. It goes on after the row of
    that name, wherever that is by now; if it is gone, where it was.
    """
    asked = page(request.page_size, request.page_token, scope=scope)
    skip = _after(found, asked.cursor, name) if asked.cursor else 0
    shown = found[skip : skip + asked.size]
    end = skip + len(shown)
    return shown, next_page_token((name(shown[-1]), str(end)) if end < len(found) else None, scope=scope)


def next_page_token(cursor: tuple[str, ...] | None, *, scope: str) -> str:
    """The token that goes on after `cursor`; empty when there is nothing more."""
    if cursor is None:
        return ""
    return base64.urlsafe_b64encode(json.dumps([_digest(scope), *cursor]).encode()).decode().rstrip("=")


def _after(found: Sequence[_Row], cursor: tuple[str, ...], name: Callable[[_Row], str]) -> int:
    match cursor:
        case (seen, end) if _number(end):
            return next((place for place, row in enumerate(found, 1) if name(row) == seen), max(int(end) - 1, 0))
    raise PageTokenInvalid


def _number(text: str) -> bool:
    return text.isdecimal() and len(text) <= _DIGITS


def _instant(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC) if found.tzinfo else None
    except (ValueError, OverflowError):
        return None


def _decode(token: str, scope: str) -> tuple[str, ...]:
    if not token:
        return ()
    try:
        digest, *cursor = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (ValueError, TypeError, RecursionError):
        raise PageTokenInvalid from None
    if digest != _digest(scope) or not all(isinstance(part, str) and _storable(part) for part in cursor):
        raise PageTokenInvalid
    return tuple(cursor)


def _storable(text: str) -> bool:
    return not any(letter == "\x00" or "\ud800" <= letter <= "\udfff" for letter in text)


def _digest(scope: str) -> str:
    return hashlib.sha256(scope.encode()).hexdigest()[:12]
