"""The chain over a log: each event's mac covers its bytes and its predecessor's mac (HMAC-SHA256, RFC 2104)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Sequence

START = b""


def macs(key: bytes, before: bytes, payloads: Sequence[bytes]) -> Iterator[bytes]:
    """One mac for each payload, the first one linked to `before`."""
    for payload in payloads:
        before = hmac.digest(key, before + payload, hashlib.sha256)
        yield before
