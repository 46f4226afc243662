"""Server-sent events (WHATWG HTML, section 9.2), whatever the cuts: what model providers stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_MAX_EVENT_BYTES: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event: its name ("" without one) and its data lines, joined."""

    name: str
    data: bytes


class EventTooLong(Exception):
    """An event of more than 8 MiB: no provider sends one."""


class EventStream:
    """Takes bytes as they come, gives the events that are complete."""

    def __init__(self) -> None:
        self._rest = b""
        self._name = ""
        self._data: list[bytes] = []
        self._held = 0

    def split(self, received: bytes) -> tuple[bytes, bytes]:
        """Whole events as they came, to be read without `feed`, and what is left to be fed. In the middle of an event's
        lines all is left.
        """
        if self._name or self._data:
            return b"", received
        received, self._rest = self._rest + received, b""
        events, blank, rest = received.rpartition(b"\n\n")
        return events + blank, rest

    def feed(self, received: bytes) -> list[ServerEvent]:
        """Events that these bytes complete. Raises EventTooLong."""
        *lines, self._rest = (self._rest + received).split(b"\n")
        found: list[ServerEvent] = []
        for line in lines:
            self._line(line.removesuffix(b"\r"), found)
        if len(self._rest) + self._held > _MAX_EVENT_BYTES:
            raise EventTooLong
        return found

    def _line(self, line: bytes, found: list[ServerEvent]) -> None:
        if line.startswith(b"data:"):
            value = line[5:].removeprefix(b" ")
            self._data.append(value)
            self._held += len(value)
        elif line.startswith(b"event:"):
            self._name = line[6:].strip().decode(errors="replace")
        elif not line:
            if self._data:
                found.append(ServerEvent(self._name, b"\n".join(self._data)))
            self._name, self._data, self._held = "", [], 0
