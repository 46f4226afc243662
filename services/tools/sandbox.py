"""One function, once, in a sandbox of its own: no network, no files, no other process, limits on everything."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final

from services.tools import isolation
from services.tools.errors import SandboxUnavailable

_MIB: Final = 1024 * 1024
_MAX_OUTPUT: Final = 64 * 1024
_MAX_ANSWER: Final = _MIB
_READ: Final = 16 * 1024


class Status(StrEnum):
    OK = "OK"
    USER_ERROR = "USER_ERROR"
    TIMEOUT = "TIMEOUT"
    MEMORY_LIMIT = "MEMORY_LIMIT"
    OUTPUT_LIMIT = "OUTPUT_LIMIT"
    CRASHED = "CRASHED"


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """What to run, with what, within which limits."""

    code: str
    entry_point: str
    arguments: Mapping[str, object]
    memory_mib: int
    timeout: timedelta


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went. `isolation` is what really ran."""

    status: Status
    result: Any = None
    message: str = ""
    trace: str = ""
    elapsed: timedelta = timedelta()
    isolation: str = isolation.NAME


Printed = Callable[[str, str], None]


class _TooMuch(Exception):
    """More output than allowed."""


class Sandbox:
    """Runs functions, a few at once."""

    def __init__(self, *, at_once: int) -> None:
        self._places = asyncio.Semaphore(at_once)

    async def run(self, call: FunctionCall, printed: Printed) -> Outcome:
        """Runs to an outcome, always. `printed` is told the stream and the text as they come.

        Raises SandboxUnavailable when the host gives no isolation; nothing runs then.
        """
        async with self._places:
            began = time.monotonic()
            status, answer = await self._run(call, printed)
            elapsed = timedelta(seconds=time.monotonic() - began)
        return Outcome(
            status=status,
            result=answer.get("result"),
            message=answer.get("message", ""),
            trace=answer.get("trace", ""),
            elapsed=elapsed,
        )

    async def _run(self, call: FunctionCall, printed: Printed) -> tuple[Status, dict[str, Any]]:
        async with _started() as (process, answers):
            try:
                async with asyncio.timeout(call.timeout.total_seconds()):
                    return await _conversation(process, answers, call, printed)
            except TimeoutError:
                return Status.TIMEOUT, {"message": f"the function ran longer than {call.timeout}"}
            except ExceptionGroup as errors:
                if errors.subgroup(_TooMuch) is None:
                    raise
                return Status.OUTPUT_LIMIT, {"message": "the function printed or returned more than is allowed"}


async def _conversation(
    process: asyncio.subprocess.Process, answers: asyncio.StreamReader, call: FunctionCall, printed: Printed
) -> tuple[Status, dict[str, Any]]:
    assert process.stdin and process.stdout and process.stderr  # noqa: S101, PT018 - all three are pipes
    async with asyncio.TaskGroup() as group:
        group.create_task(_pump(process.stdout, "stdout", printed))
        errors = group.create_task(_pump(process.stderr, "stderr", printed))
        answer = group.create_task(_all_of(answers))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(_order(call))
            await process.stdin.drain()
            process.stdin.close()
    code = await process.wait()
    if answer.result():
        found = json.loads(answer.result())
        return Status(found["status"]), found
    if "bwrap:" in errors.result():
        raise SandboxUnavailable("this host gives no isolation to run functions in", why=errors.result()[:200])
    return Status.CRASHED, {"message": f"the function ended its process with status {code}"}


@asynccontextmanager
async def _started() -> AsyncIterator[tuple[asyncio.subprocess.Process, asyncio.StreamReader]]:
    """A sandbox that waits for its order. It is gone when the block ends, whatever it was doing."""
    reading, writing = os.pipe()
    filter_read, filter_write = os.pipe()
    os.write(filter_write, isolation.seccomp_program())
    os.close(filter_write)
    try:
        process = await asyncio.create_subprocess_exec(
            *isolation.command(writing, filter_read),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=(writing, filter_read),
            env={},
        )
    finally:
        os.close(writing)
        os.close(filter_read)
    assert process.stdout and process.stderr  # noqa: S101, PT018 - both are pipes
    answers = asyncio.StreamReader()
    pipe = os.fdopen(reading, "rb")
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(answers), pipe)
    try:
        yield process, answers
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        # What it still had in its pipes must be read, or asyncio never sees it end.
        await asyncio.gather(process.stdout.read(), process.stderr.read())
        await process.wait()
        transport.close()


def _order(call: FunctionCall) -> bytes:
    return json.dumps(
        {
            "code": call.code,
            "entry_point": call.entry_point,
            "arguments": dict(call.arguments),
            "memory_bytes": call.memory_mib * _MIB,
            "cpu_seconds": int(call.timeout.total_seconds()) + 1,
        }
    ).encode()


async def _pump(source: asyncio.StreamReader, name: str, printed: Printed) -> str:
    """Hands on what is printed; raises when it is too much. Returns the beginning."""
    kept, total = "", 0
    while data := await source.read(_READ):
        total += len(data)
        if total > _MAX_OUTPUT:
            raise _TooMuch
        text = data.decode(errors="replace")
        kept += text
        printed(name, text)
    return kept


async def _all_of(source: asyncio.StreamReader) -> bytes:
    found = b""
    while data := await source.read(_READ):
        found += data
        if len(found) > _MAX_ANSWER:
            raise _TooMuch
    return found
