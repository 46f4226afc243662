"""Inside the sandbox: runs what was ordered and puts what came of it into JSON."""

from __future__ import annotations

import binascii
import builtins
import errno
import json
import sys
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

FORBIDDEN = frozenset({"eval", "exec", "compile", "open", "input", "breakpoint", "globals", "locals", "vars"})
MAX_EVENT = 16 * 1024
MAX_EVENTS = 256
MAX_FETCHES = 32
MAX_BODY = 256 * 1024
MAX_ARTEFACTS = 16
MAX_ARTEFACT_BYTES = 4 * 1024 * 1024
_CODE_NAME = "<function>"
# Made once: to make it anew for each call would touch, and so copy, the memory of every type there is.
_KEPT = {name: value for name, value in vars(builtins).items() if name not in FORBIDDEN}
_DENIALS = frozenset({errno.EPERM, errno.EACCES, errno.EROFS})


def run(order: dict[str, Any], say: Callable[[bytes], object] = bytes) -> dict[str, Any]:
    """`say` is told each line: an event of `emit`, a thing of `attach(name, content)`, what `fetch(url)` asks."""
    try:
        names: dict[str, Any] = {"__name__": "function", "emit": _emitter(say)}
        if order.get("attach"):
            names["attach"] = _attacher(say)
        if order.get("fetch"):
            names["fetch"] = _fetcher(say)
        if order.get("allowed_imports") is not None:
            names["__builtins__"] = _restricted(frozenset(order["allowed_imports"]))
        if "entry_point" not in order:
            names["__name__"] = "__main__"
        exec(compile(order["code"], _CODE_NAME, "exec"), names)  # noqa: S102 - the sandbox is what this is for
        if "entry_point" not in order:
            return {"status": "OK", "result": None}
        result = names[order["entry_point"]](**order["arguments"])
        if isinstance(result, Awaitable):
            result = _awaited(result)
    except MemoryError:
        return {"status": "MEMORY_LIMIT", "message": "the function needs more memory than its limit"}
    except BaseException as error:  # noqa: BLE001 - whatever the function raises is its answer
        denied = isinstance(error, OSError) and error.errno in _DENIALS
        return {
            "status": "DENIED" if denied else "USER_ERROR",
            "message": _said(error),
            "trace": _trace(error.__traceback__),
        }
    return _returned(result)


def _emitter(say: Callable[[bytes], object]) -> Callable[..., None]:
    left = iter(range(MAX_EVENTS))

    def emit(kind: str, data: object = None) -> None:
        line = json.dumps({"event": str(kind)[:64], "data": data}, allow_nan=False).encode()
        if len(line) > MAX_EVENT:
            raise ValueError(f"an event has at most {MAX_EVENT} bytes of JSON")
        if next(left, None) is None:
            raise ValueError(f"a call emits at most {MAX_EVENTS} events")
        say(line + b"\n")

    return emit


def _attacher(say: Callable[[bytes], object]) -> Callable[[str, str | bytes], None]:
    left, room = iter(range(MAX_ARTEFACTS)), MAX_ARTEFACT_BYTES

    def attach(name: str, content: str | bytes) -> None:
        nonlocal room
        data = content.encode() if isinstance(content, str) else bytes(content)
        room -= len(data)
        if room < 0 or next(left, None) is None:
            raise ValueError(f"a call attaches at most {MAX_ARTEFACTS} things of {MAX_ARTEFACT_BYTES} bytes together")
        text = binascii.b2a_base64(data, newline=False).decode()
        say(json.dumps({"artefact": str(name), "data": text}).encode() + b"\n")

    return attach


def _fetcher(say: Callable[[bytes], object]) -> Callable[..., Any]:
    """The one way out, and only to what the tool was granted: the mesh makes the request, not this process."""
    left = iter(range(MAX_FETCHES))

    def fetch(
        url: str, *, method: str = "GET", headers: dict[str, str] | None = None, body: str | None = None
    ) -> dict[str, Any]:
        if next(left, None) is None:
            raise ValueError(f"a call fetches at most {MAX_FETCHES} times")
        if body is not None and len(body.encode()) > MAX_BODY:
            raise ValueError(f"a body has at most {MAX_BODY} bytes")
        asked = {"url": str(url), "method": str(method), "headers": dict(headers or {}), "body": body}
        say(json.dumps({"fetch": asked}).encode() + b"\n")
        reply = json.loads(sys.stdin.buffer.readline())
        if "error" in reply:
            raise ConnectionError(reply["error"])
        found: dict[str, Any] = reply
        return found

    return fetch


def _restricted(allowed: frozenset[str]) -> dict[str, Any]:
    """What the function's own lines find: none of the builtins, and no import, that its registration refused.

    This tells a function early what it may not do. It holds nothing back: the operating system does.
    """

    def guarded(name: str, *given: Any, **named: Any) -> Any:
        if name.partition(".")[0] not in allowed:
            raise ImportError(f"importing {name} is not allowed")
        return builtins.__import__(name, *given, **named)

    _KEPT["__import__"] = guarded
    return _KEPT


def _returned(result: object) -> dict[str, Any]:
    try:
        return {"status": "OK", "result": json.loads(json.dumps(result, allow_nan=False))}
    except MemoryError:
        return {"status": "MEMORY_LIMIT", "message": "the function's result needs more memory than its limit"}
    except BaseException as error:  # noqa: BLE001 - the result's own code may run here
        return {"status": "USER_ERROR", "message": f"the result is not JSON: {_said(error)}"}


def _awaited(value: Awaitable[Any]) -> object:
    """Without asyncio there is nothing to wait for, and importing it is dear."""

    async def wait() -> object:
        return await value

    if "asyncio" in sys.modules:
        return sys.modules["asyncio"].run(wait())
    coroutine = wait()
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise RuntimeError("the function waits for something that never comes")


def _said(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:500]
    except BaseException:  # noqa: BLE001 - its text is the function's code as well
        return "an error without a text"


def _trace(place: TracebackType | None) -> str:
    """The function's own lines, innermost last, and nothing of this program."""
    lines: list[str] = []
    while place is not None:
        code = place.tb_frame.f_code
        if code.co_filename == _CODE_NAME:
            lines.append(f"line {place.tb_lineno} in {code.co_name}")
        place = place.tb_next
    return "\n".join(lines[-20:])[:2000]
