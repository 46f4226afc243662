"""Cursors that no list gave out: what the token of a forger holds."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import pytest

from shared.errors import PageTokenInvalid
from shared.paging import Page

Cursor = tuple[str, ...]
ROWS: Final[Sequence[Cursor]] = (("a", "b"),)
NUMBERS: Final[Sequence[Cursor]] = (("many",), ("-1",), ("",), ("²",), ("9" * 19,), ("1", "2"))
PLACES: Final[Sequence[Cursor]] = (
    ("x",), ("soon", "id"), ("2026-01-01T12:00:00", "id"), ("2026-01-01T12:00:00+00:00", "id", "id"),
    ("9999-12-31T23:59:59-23:59", "id"), ("0001-01-01T00:00:00+23:59", "id"),
)  # fmt: skip


async def refused(listed: Callable[[Page], Awaitable[object]], cursors: Sequence[Cursor]) -> None:
    """A store's list takes none of them, and says that it is the token."""
    for cursor in cursors:
        with pytest.raises(PageTokenInvalid):
            await listed(Page(2, cursor))


def forged(token: str, cursor: object) -> str:
    """The token of the same list with another cursor in it."""
    digest, *_ = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    parts = cursor if isinstance(cursor, tuple) else (cursor,)
    return base64.urlsafe_b64encode(json.dumps([digest, *parts]).encode()).decode().rstrip("=")
