"""One function, once, in a sandbox of its own: no network, no files, no other process, limits on everything."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import json
import os
import signal
import socket
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
        # Only a sandbox that stands gets something to run: from then on it cannot outlive the process we hold.
        ready = await answers.read(len(READY)) == READY
        answering = group.create_task(_all_of(answers))
        if ready:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                process.stdin.write(_order(call))
                await process.stdin.drain()
        process.stdin.close()
    code = await process.wait()
    if not ready:
        raise SandboxUnavailable("this host gives no isolation to run functions in", why=errors.result()[:200])
    said = answering.result()
    return answer.read(said) if said else answer.ended(code)


@asynccontextmanager
async def _started() -> AsyncIterator[tuple[asyncio.subprocess.Process, asyncio.StreamReader]]:
    """A sandbox that waits for its order. It is gone when the block ends, whatever it was doing."""
    async with _spawned() as (process, near):
        # A socket has one owner; a pipe's number would be closed by its file and by the loop.
        answers, writer = await asyncio.open_connection(sock=near)
        try:
            yield process, answers
        finally:
            writer.close()


@asynccontextmanager
async def _spawned() -> AsyncIterator[tuple[asyncio.subprocess.Process, socket.socket]]:
    near, far = socket.socketpair()
    starting = asyncio.ensure_future(_spawn(far))
    try:
        process = await asyncio.shield(starting)
    except asyncio.CancelledError:
        # asyncio would end the outer process alone, so what is being started is started first.
        near.close()
        await asyncio.shield(_unwanted(starting))
        raise
    except OSError as error:
        near.close()
        raise SandboxUnavailable("bubblewrap cannot be started on this host", why=str(error)[:200]) from error
    try:
        yield process, near
    finally:
        await asyncio.shield(_ended(process))


async def _spawn(far: socket.socket) -> asyncio.subprocess.Process:
    filter_read, filter_write = os.pipe()
    os.write(filter_write, isolation.seccomp_program())
    os.close(filter_write)
    try:
        return await asyncio.create_subprocess_exec(
            *isolation.command(far.fileno(), filter_read),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=(far.fileno(), filter_read),
            env={},
            start_new_session=True,
        )
    finally:
        far.close()
        os.close(filter_read)


async def _unwanted(starting: asyncio.Future[asyncio.subprocess.Process]) -> None:
    with contextlib.suppress(OSError):
        await _ended(await starting)


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Ends the sandbox and all that is in it, and waits until it is gone.

    Until bubblewrap has set up its inner process that one does not die with the outer, so the whole group is killed.
    """
    assert process.stdin and process.stdout and process.stderr  # noqa: S101, PT018 - all three are pipes
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if not process.stdin.is_closing():
        process.stdin.transport.abort()
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
