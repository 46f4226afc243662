"""The program inside the sandbox: takes limits, code and arguments on stdin, calls the function, answers on its own pipe."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import resource
import sys
import traceback
from typing import Any

_CODE_NAME = "<function>"


def main() -> None:
    answer = int(sys.argv[1])
    order = json.loads(sys.stdin.buffer.read())
    _limit(order["memory_bytes"], order["cpu_seconds"])
    with os.fdopen(answer, "w") as pipe:
        json.dump(_run(order), pipe)


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
        if inspect.isawaitable(result):
            result = asyncio.run(_awaited(result))
        return {"status": "OK", "result": json.loads(json.dumps(result))}
    except MemoryError:
        return {"status": "MEMORY_LIMIT", "message": "the function needs more memory than its limit"}
    except BaseException as error:  # noqa: BLE001 - whatever the function raises is its answer
        return {"status": "USER_ERROR", "message": f"{type(error).__name__}: {error}"[:500], "trace": _trace(error)}


async def _awaited(value: Any) -> Any:
    return await value


def _trace(error: BaseException) -> str:
    """The function's own lines, and nothing of this program."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == _CODE_NAME]
    return "\n".join(f"line {frame.lineno} in {frame.name}" for frame in frames)[:2000]


if __name__ == "__main__":
    main()
