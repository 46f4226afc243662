"""Server-sent events, as far as model providers use them (WHATWG HTML, section 9.2): data lines, whatever the cuts."""

from __future__ import annotations


class DataLines:
    """Takes bytes as they come, gives the data of each complete line."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The data of every line that is complete now."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line[5:].strip() for line in lines if line.startswith(b"data:")]
