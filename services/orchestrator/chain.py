"""The chain over a log: each event's mac covers its bytes and its predecessor's mac (HMAC-SHA256, RFC 2104)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Sequence

from agentnet.orchestrator.v1 import event_pb2, history_pb2, session_pb2

START = b""


def macs(key: bytes, before: bytes, payloads: Sequence[bytes]) -> Iterator[bytes]:
    """One mac for each payload, the first one linked to `before`."""
    for payload in payloads:
        before = hmac.digest(key, before + payload, hashlib.sha256)
        yield before


class Check:
    """Goes through a log from its first event and stops at the first one that is not as it was written."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._before = START
        self._last = b""
        self.report = history_pb2.ChainReport(intact=True)

    def look(self, sequence: int, payload: bytes, mac: bytes) -> bool:
        """False when this event is wrong."""
        expected = self.report.events + 1
        self._before = hmac.digest(self._key, self._before + payload, hashlib.sha256)
        if sequence != expected:
            self._wrong(expected, "missing")
        elif not hmac.compare_digest(self._before, mac):
            self._wrong(sequence, "edited")
        else:
            self.report.events = sequence
            self._last = payload
        return self.report.intact

    def end(self, session: session_pb2.Session) -> history_pb2.ChainReport:
        """What was found, of a log that must reach as far as its session says, and to its end when that has ended."""
        if self.report.intact and (self.report.events < session.last_sequence or not self._ended(session)):
            self._wrong(self.report.events + 1, "truncated")
        return self.report

    def _ended(self, session: session_pb2.Session) -> bool:
        """Whether the last event fits the session's state."""
        if not session.HasField("end_time"):
            return True
        return event_pb2.SessionEvent.FromString(self._last).HasField("session_finished")

    def _wrong(self, sequence: int, fault: str) -> None:
        self.report.intact, self.report.sequence, self.report.fault = False, sequence, fault
