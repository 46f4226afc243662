"""The program inside the sandbox: takes limits, code and arguments on stdin, answers on a pipe of its own."""

from __future__ import annotations

import errno
import json
import os
import resource
import sys
from collections.abc import Awaitable
from types import TracebackType
from typing import Any

READY = b"ready\n"
_CODE_NAME = "<function>"
_DENIALS = frozenset({errno.EPERM, errno.EACCES, errno.EROFS})


def main() -> None:
    answer = int(sys.argv[1])
    os.write(answer, READY)
    order = json.loads(sys.stdin.buffer.read())
    _limit(order["memory_bytes"], order["cpu_seconds"])
    with os.fdopen(answer, "w") as pipe:
        pipe.write(json.dumps(_run(order)))


def _limit(memory_bytes: int, cpu_seconds: int) -> None:
    """Hard limits, which what follows cannot raise again."""
    limits = (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_FSIZE, 16 * 1024 * 1024),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    )
    for kind, value in limits:
        resource.setrlimit(kind, (value, value))


def _run(order: dict[str, Any]) -> dict[str, Any]:
    try:
        names: dict[str, Any] = {"__name__": "function"}
        exec(compile(order["code"], _CODE_NAME, "exec"), names)  # noqa: S102 - the sandbox is what this is for
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


def _returned(result: object) -> dict[str, Any]:
    try:
        return {"status": "OK", "result": json.loads(json.dumps(result, allow_nan=False))}
    except MemoryError:
        return {"status": "MEMORY_LIMIT", "message": "the function's result needs more memory than its limit"}
    except BaseException as error:  # noqa: BLE001 - the result's own code may run here
        return {"status": "USER_ERROR", "message": f"the result is not JSON: {_said(error)}"}


def _awaited(value: Awaitable[Any]) -> object:
    import asyncio  # noqa: PLC0415 - half of the start-up time, which ordinary functions need not pay

    async def wait() -> object:
        return await value

    return asyncio.run(wait())


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


if __name__ == "__main__":
    main()
