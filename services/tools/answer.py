"""What comes back from a sandbox, believed only as far as it can be: the function may have written it itself."""

from __future__ import annotations

import base64
import gc
import hashlib
import json
import re
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final, NoReturn

from services.tools import sanitise

# Deeper data does not survive protobuf: an object costs three of the hundred levels that parsers allow.
_MAX_DEPTH: Final = 30
# More would keep the service busy for longer than a neighbour may wait.
_MAX_VALUES: Final = 50_000
_LARGEST: Final = 10**300
# Half a character, or the first half of one: the only way to text that is no Unicode.
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_SAID_BY_RUNNER: Final = frozenset({"OK", "USER_ERROR", "MEMORY_LIMIT", "DENIED"})


class Status(StrEnum):
    OK = "OK"
    USER_ERROR = "USER_ERROR"
    TIMEOUT = "TIMEOUT"
    MEMORY_LIMIT = "MEMORY_LIMIT"
    OUTPUT_LIMIT = "OUTPUT_LIMIT"
    DENIED = "DENIED"
    CRASHED = "CRASHED"
    # Of tools that reach out of the mesh: it will not, it failed for now, nothing was sent, nobody knows.
    UPSTREAM_REFUSED = "UPSTREAM_REFUSED"
    UPSTREAM_ERROR = "UPSTREAM_ERROR"
    UNREACHABLE = "UNREACHABLE"
    UNKNOWN = "UNKNOWN"


Answer = tuple[Status, dict[str, Any]]
# Told the stream ("stdout", "stderr" or EMITTED) and the text.
Printed = Callable[[str, str], None]
EMITTED: Final = "emitted"
ARTEFACT_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class Artefact:
    """A thing that a function left: its bytes, until the object store has them."""

    name: str
    size: int
    sha256: str
    invocation_id: str = ""
    content: bytes = b""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call went. `isolation` is what really ran; a replayed or cached outcome is an earlier call's."""

    status: Status
    result: Any = None
    message: str = ""
    trace: str = ""
    elapsed: timedelta = timedelta()
    isolation: str = ""
    replayed: bool = False
    cached: bool = False
    artefacts: tuple[Artefact, ...] = ()

    def as_data(self) -> dict[str, Any]:
        """What a store keeps of it."""
        return {
            "status": self.status.value,
            "result": self.result,
            "message": self.message,
            "trace": self.trace,
            "elapsed": self.elapsed.total_seconds(),
            "isolation": self.isolation,
            "artefacts": [[one.name, one.size, one.sha256, one.invocation_id] for one in self.artefacts],
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Outcome:
        kept: dict[str, Any] = {"status": Status(data["status"]), "elapsed": timedelta(seconds=data["elapsed"])}
        kept["artefacts"] = tuple(Artefact(*one) for one in data.get("artefacts", ()))
        return cls(**{**data, **kept})


def read_bulky(data: bytes) -> Answer:
    """As `read`, for a thread: what it makes is not looked through for cycles, which would hold up everybody else."""
    gc.disable()
    try:
        return read(data)
    finally:
        gc.enable()


def read(data: bytes) -> Answer:
    """The runner's answer. Anything else on its pipe counts as a crash."""
    # Counted before it is read: making so many lists would hold up the whole service.
    if data.count(b"[") + data.count(b"{") > 2 * _MAX_VALUES:
        return Status.USER_ERROR, {"message": f"the result holds more than {_MAX_VALUES} values"}
    try:
        found = json.loads(data.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return disturbed()
    if not isinstance(found, dict) or found.get("status") not in _SAID_BY_RUNNER:
        return disturbed()
    if problem := flaw(found.get("result"), escaped=bool(_SURROGATE.search(data))):
        return Status.USER_ERROR, {"message": f"the result {problem}"}
    texts = {name: _plain(found.get(name)) for name in ("message", "trace")}
    return Status(found["status"]), {"result": found.get("result"), **texts}


def event(line: bytes) -> str | None:
    """What `emit` said, as the JSON text of {"event": kind, "data": data}; None when it is not that."""
    try:
        found = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("event"), str) or flaw(found):
        return None
    return json.dumps({"event": found["event"][:64], "data": found.get("data")})


def artefact(line: bytes) -> Artefact | None:
    """What `attach` left: {"artefact": name, "data": base64}; None when the line is something else."""
    try:
        found = json.loads(line, parse_constant=_refuse)
        name, text = found["artefact"], found["data"]
        data = base64.b64decode(text, validate=True)
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    if not isinstance(name, str) or not ARTEFACT_NAME.fullmatch(name):
        return None
    return Artefact(name, len(data), hashlib.sha256(data).hexdigest(), content=data)


def errand(line: bytes) -> Mapping[str, Any] | None:
    """What `fetch` asks for: {"fetch": {"url": …}}; None when the line is something else."""
    try:
        found = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    asked = found.get("fetch") if isinstance(found, dict) else None
    return asked if isinstance(asked, dict) and not flaw(asked) else None


def ended(code: int) -> Answer:
    """What it means that the process ended without an answer; bubblewrap adds 128 to a signal's number."""
    number = -code if code < 0 else code - 128
    if number == signal.SIGSYS:
        return Status.DENIED, {"message": "the function made a system call that no function may make"}
    if number in signal.valid_signals():
        return Status.CRASHED, {"message": f"the function's process died of {signal.Signals(number).name}"}
    return Status.CRASHED, {"message": f"the function ended its process with status {code}"}


def exited(code: int) -> Answer:
    """What it means that a program ended by itself; that it was killed is a crash."""
    return ended(code) if code < 0 else (Status.OK, {"result": {"exit_code": code}})


def flaw(value: object, *, escaped: bool = True) -> str | None:
    """Why JSON data cannot go into an answer, or None. Text that no escape made is Unicode and not looked through."""
    level, left = [value], _MAX_VALUES
    for _ in range(_MAX_DEPTH + 1):
        left -= len(level)
        if left < 0:
            return f"holds more than {_MAX_VALUES} values"
        parts: list[Any] = []
        for one in level:
            if isinstance(one, list):
                parts += one
            elif isinstance(one, dict):
                parts += one.values()
            elif isinstance(one, int | float) and not abs(one) <= _LARGEST:
                return "holds a number too large for JSON"
        if not parts:
            # All its text at once, names as well: one by one takes ten times as long.
            return "holds text that is no Unicode" if escaped and not _unicode(value) else None
        level = parts
    return f"is nested deeper than {_MAX_DEPTH} levels"


def _unicode(value: object) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def disturbed() -> Answer:
    return Status.CRASHED, {"message": "the function wrote where only its runner may"}


def _plain(text: object) -> str:
    return sanitise.text(text[:4000].encode(errors="replace").decode()) if isinstance(text, str) else ""


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)
