"""One event, and which names a subscription means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

NAME: Final = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)+")
PATTERN: Final = re.compile(r"\*|[a-z][a-z0-9_]*(\.[a-z0-9_]+)*\.\*|[a-z][a-z0-9_]*(\.[a-z0-9_]+)+")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a tenant. The sequence is 0 until it is kept."""

    id: str
    name: str
    occurred_at: datetime
    source: str
    subject: str = ""
    session_id: str = ""
    agent: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events are meant; what is empty is not filtered by."""

    names: tuple[str, ...] = ()
    session_id: str = ""
    start: datetime | None = None
    end: datetime | None = None

    def fits(self, event: Event) -> bool:
        return (
            (not self.names or matches(event.name, self.names))
            and self.session_id in {"", event.session_id}
            and (self.start is None or event.occurred_at >= self.start)
            and (self.end is None or event.occurred_at < self.end)
        )


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether one of the patterns, exact, "session.*" or "*", means the name."""
    return any(
        pattern in {"*", name} or (pattern.endswith(".*") and name.startswith(pattern[:-1])) for pattern in patterns
    )
