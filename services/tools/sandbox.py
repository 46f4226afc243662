"""One function, once, in a sandbox of its own: no network, no files, no other process, limits on everything."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from services.tools import answer, isolation
from services.tools.answer import Answer, Status
from services.tools.errors import SandboxUnavailable
from services.tools.runner import READY
from shared.errors import ResourceExhausted

_MIB: Final = 1024 * 1024
_MAX_OUTPUT: Final = 64 * 1024
_MAX_ANSWER: Final = _MIB
_READ: Final = 16 * 1024
_WAITING_PER_PLACE: Final = 16


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
        self._most = at_once * (1 + _WAITING_PER_PLACE)
        self._present = 0

    def check_room(self) -> None:
        """Raises ResourceExhausted when too many wait already."""
        if self._present >= self._most:
            raise ResourceExhausted("too many functions wait for a sandbox", retry_after=timedelta(seconds=1))

    async def run(self, call: FunctionCall, printed: Printed) -> Outcome:
        """Runs to an outcome, always. `printed` is told the stream and the text as they come.

        Raises SandboxUnavailable when the host gives no isolation; nothing runs then.
        """
        self._present += 1
        try:
            async with self._places:
                began = time.monotonic()
                status, found = await self._run(call, printed)
                elapsed = timedelta(seconds=time.monotonic() - began)
        finally:
            self._present -= 1
        return Outcome(
            status=status,
            result=found.get("result"),
            message=found.get("message", ""),
            trace=found.get("trace", ""),
            elapsed=elapsed,
        )

    async def _run(self, call: FunctionCall, printed: Printed) -> Answer:
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
) -> Answer:
    assert process.stdin and process.stdout and process.stderr  # noqa: S101, PT018 - all three are pipes
    async with asyncio.TaskGroup() as group:
        group.create_task(_pump(process.stdout, "stdout", printed))
        errors = group.create_task(_pump(process.stderr, "stderr", printed))
        answering = group.create_task(_all_of(answers))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(_order(call))
            await process.stdin.drain()
            process.stdin.close()
    code = await process.wait()
    data = answering.result()
    if not data.startswith(READY):
        raise SandboxUnavailable("this host gives no isolation to run functions in", why=errors.result()[:200])
    said = data.removeprefix(READY)
    return answer.read(said) if said else answer.ended(code)


@asynccontextmanager
async def _started() -> AsyncIterator[tuple[asyncio.subprocess.Process, asyncio.StreamReader]]:
    """A sandbox that waits for its order. It is gone when the block ends, whatever it was doing."""
    async with _spawned() as (process, reading):
        answers = asyncio.StreamReader()
        with os.fdopen(reading, "rb") as pipe:
            transport, _ = await asyncio.get_running_loop().connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(answers), pipe
            )
            try:
                yield process, answers
            finally:
                transport.close()


@asynccontextmanager
async def _spawned() -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
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
    except OSError as error:
        os.close(reading)
        raise SandboxUnavailable("bubblewrap cannot be started on this host", why=str(error)[:200]) from error
    finally:
        os.close(writing)
        os.close(filter_read)
    assert process.stdout and process.stderr  # noqa: S101, PT018 - both are pipes
    try:
        yield process, reading
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        # What it still had in its pipes must be read, or asyncio never sees it end.
        await asyncio.gather(process.stdout.read(), process.stderr.read())
        await process.wait()


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
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    while data := await source.read(_READ):
        total += len(data)
        if total > _MAX_OUTPUT:
            raise _TooMuch
        text = decoder.decode(data)
        kept += text
        if text:
            printed(name, text)
    return kept


async def _all_of(source: asyncio.StreamReader) -> bytes:
    found = b""
    while data := await source.read(_READ):
        found += data
        if len(found) > _MAX_ANSWER:
            raise _TooMuch
    return found
