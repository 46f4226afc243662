"""What a tool says, made safe to show: no secret that it was given, no control sequence that a terminal would obey."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, Final

MASK: Final = "[secret]"
_SHORTEST_SECRET: Final = 4
# ANSI sequences (CSI, OSC, two-character escapes), then every other control character but tab, line feed and return.
_CONTROL: Final = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-_]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"
)


def text(value: str, secrets: Collection[str] = ()) -> str:
    """Printed text."""
    return masked(_CONTROL.sub("", value), secrets)


def masked(value: str, secrets: Collection[str]) -> str:
    for secret in secrets:
        if len(secret) >= _SHORTEST_SECRET:
            value = value.replace(secret, MASK)
    return value


def data(value: Any, secrets: Collection[str]) -> Any:
    """JSON data: only secrets are masked, everything else is the tool's to say."""
    match value:
        case str():
            return masked(value, secrets)
        case list():
            return [data(part, secrets) for part in value]
        case dict():
            return {masked(key, secrets): data(part, secrets) for key, part in value.items()}
        case _:
            return value
