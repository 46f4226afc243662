"""Opaque ids that sort by time: a prefix that names the noun, then a ULID (github.com/ulid/spec)."""

from __future__ import annotations

import secrets
import time
from itertools import count
from typing import Final, Protocol

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32
_PAIRS: Final = [one + other for one in _ALPHABET for other in _ALPHABET]
_SHIFTS: Final = range(120, -1, -10)


class Ids(Protocol):
    def new(self, prefix: str) -> str:
        """A fresh id, for example `ses_01J…` for the prefix "ses"."""


class RandomIds:
    def new(self, prefix: str) -> str:
        value = (time.time_ns() // 1_000_000 << 80) | secrets.randbits(80)
        return f"{prefix}_{_encode(value)}"


class SequentialIds:
    """Ids for tests: `ses_1`, `ses_2`, one count for all prefixes."""

    def __init__(self) -> None:
        self._next = count(1)

    def new(self, prefix: str) -> str:
        return f"{prefix}_{next(self._next)}"


def _encode(value: int) -> str:
    return "".join([_PAIRS[value >> shift & 1023] for shift in _SHIFTS])
