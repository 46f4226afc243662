"""One function, once, in a sandbox of its own: no network, no files, no other process, limits on everything."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Protocol, Self

from services.tools import answer, isolation
from services.tools.answer import Answer, Outcome, Printed, Status
from services.tools.errors import SandboxUnavailable
from services.tools.jail import Call, Drain, Jail, TooMuch
from services.tools.zygote import READY
from shared.errors import ResourceExhausted
from shared.log import log

_MIB: Final = 1024 * 1024
_MAX_OUTPUT: Final = 64 * 1024
_MAX_ANSWER: Final = _MIB
_SCRATCH: Final = 16 * _MIB
_WAITING_PER_PLACE: Final = 16
# A call that is cut is killed at once; how long its caller waits to see it gone.
_GONE_SECONDS: Final = 0.15


class SandboxCall(Protocol):
    """What a sandbox is asked to run."""

    @property
    def timeout(self) -> timedelta:
        """Wall time at most."""

    def order(self) -> bytes:
        """What the program inside reads."""


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """What to run, with what, within which limits."""

    code: str
    entry_point: str
    arguments: Mapping[str, object]
    memory_mib: int
    timeout: timedelta
    allowed_imports: Sequence[str] | None = None  # and no builtin that validation refuses; None: everything there is

    def order(self) -> bytes:
        order = {
            "code": self.code,
            "entry_point": self.entry_point,
            "arguments": dict(self.arguments),
            "allowed_imports": None if self.allowed_imports is None else list(self.allowed_imports),
            "limits": _limits(self.timeout, memory_mib=self.memory_mib, processes=1),
        }
        return json.dumps(order).encode()


@dataclass(frozen=True, slots=True)
class ProgramCall:
    """A program and its arguments. The limit of memory is each process's."""

    command: Sequence[str]
    memory_mib: int
    processes: int
    timeout: timedelta

    def order(self) -> bytes:
        limits = _limits(self.timeout, memory_mib=self.memory_mib, processes=self.processes)
        return json.dumps({"command": list(self.command), "limits": limits}).encode()


@dataclass(frozen=True, slots=True)
class ScriptCall:
    """Python source that talks over its input and output."""

    code: str
    memory_mib: int
    timeout: timedelta

    def order(self) -> bytes:
        limits = _limits(self.timeout, memory_mib=self.memory_mib, processes=1)
        return json.dumps({"code": self.code, "limits": limits}).encode()


def _limits(timeout: timedelta, *, memory_mib: int, processes: int) -> dict[str, int]:
    return {
        "RLIMIT_AS": memory_mib * _MIB,
        "RLIMIT_CPU": int(timeout.total_seconds()) + 1,
        "RLIMIT_FSIZE": _SCRATCH,
        "RLIMIT_NOFILE": 64,
        "RLIMIT_NPROC": processes,
        "RLIMIT_CORE": 0,
        "RLIMIT_MEMLOCK": 64 * 1024,
        "RLIMIT_MSGQUEUE": 0,
        "RLIMIT_SIGPENDING": 256,
    }


class Sandbox:
    """Runs calls, a few at once. The outer sandbox is started with the first call and serves until the end."""

    def __init__(self, *, at_once: int, profile: isolation.Profile = isolation.FUNCTIONS) -> None:
        self._profile = profile
        self._places = asyncio.Semaphore(at_once)
        self._most = at_once * (1 + _WAITING_PER_PLACE)
        self._present = 0
        self._spares = at_once + 1
        self._starting = asyncio.Lock()
        self._jail: Jail | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._jail:
            await self._jail.close()

    def check_room(self) -> None:
        """Raises ResourceExhausted when too many wait already."""
        if self._present >= self._most:
            raise ResourceExhausted("too many functions wait for a sandbox", retry_after=timedelta(seconds=1))

    async def prepare(self) -> None:
        """Starts the outer sandbox before a call needs it. On a host without isolation every call is refused."""
        try:
            await self._standing()
        except SandboxUnavailable as error:
            log.warning("sandbox.unavailable", why=error.facts.get("why", ""))

    async def run(self, call: SandboxCall, printed: Printed) -> Outcome:
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
            isolation=isolation.NAME,
        )

    async def _run(self, call: SandboxCall, printed: Printed) -> Answer:
        async with self._started(call) as running:
            conversation = _Conversation(running, printed, program=isinstance(call, ProgramCall))
            try:
                async with asyncio.timeout(call.timeout.total_seconds()):
                    return await conversation.answer()
            except TimeoutError:
                return Status.TIMEOUT, {"message": f"the function ran longer than {call.timeout}"}
            except TooMuch:
                return Status.OUTPUT_LIMIT, {"message": "the function printed or returned more than is allowed"}
            finally:
                running.cut()
                conversation.close()

    @asynccontextmanager
    async def talking(self, call: ScriptCall) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.WriteTransport]]:
        """A script that runs while the block does: its output and its input. It is gone when the block ends.

        Raises SandboxUnavailable. What it prints to its error stream is dropped.
        """
        source, sink = os.pipe()
        try:
            async with self._places, self._started(call, given=source) as running:
                os.close(source)
                source = -1
                conversation = _Conversation(running, lambda *_: None, program=False, listening=False)
                try:
                    async with _piped(running.out, sink) as pipes:
                        sink = -1
                        yield pipes
                finally:
                    running.cut()
                    conversation.close()
        finally:
            for descriptor in (source, sink):
                if descriptor >= 0:
                    os.close(descriptor)

    @asynccontextmanager
    async def _started(self, call: SandboxCall, *, given: int | None = None) -> AsyncIterator[Call]:
        jail = await self._standing()
        try:
            running = jail.call(call.order(), given=given)
        except OSError:
            # It ended between two calls; a new one takes its place once.
            await self._replace(jail)
            running = (await self._standing()).call(call.order(), given=given)
        try:
            yield running
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GONE_SECONDS):
                    await asyncio.shield(running.ended)

    async def _standing(self) -> Jail:
        async with self._starting:
            if self._jail and not self._jail.stands:
                await self._jail.close()
                self._jail = None
            if self._jail is None:
                self._jail = await Jail.start(self._profile, spares=self._spares)
            return self._jail

    async def _replace(self, gone: Jail) -> None:
        async with self._starting:
            if self._jail is gone:
                self._jail = None
                await gone.close()


class _Conversation:
    """What comes out of one call."""

    def __init__(self, running: Call, printed: Printed, *, program: bool, listening: bool = True) -> None:
        self._running = running
        self._program = program
        self._said = bytearray()
        out = [Drain(running.out, limit=_MAX_OUTPUT, tell=_Text("stdout", printed))] if listening else []
        self._drains = [
            *out,
            Drain(running.err, limit=_MAX_OUTPUT, tell=_Text("stderr", printed)),
            Drain(running.answer, limit=_MAX_ANSWER, tell=self._said.extend),
        ]

    async def answer(self) -> Answer:
        """Raises TooMuch, and SandboxUnavailable when the call never stood in its sandbox."""
        await asyncio.gather(asyncio.shield(self._running.ended), *(drain.done for drain in self._drains))
        code = self._running.ended.result()
        if not self._said.startswith(READY):
            raise SandboxUnavailable("the host gave a call no isolation", why=f"status {code}")
        said = bytes(self._said[len(READY) :])
        if said:
            return answer.read(said)
        return answer.exited(code) if self._program else answer.ended(code)

    def close(self) -> None:
        for drain in self._drains:
            drain.close()


@dataclass(slots=True)
class _Text:
    """Hands bytes on as text, whatever the cuts."""

    name: str
    printed: Printed
    decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")(errors="replace")
    )

    def __call__(self, data: bytes) -> None:
        if text := self.decoder.decode(data):
            self.printed(self.name, text)


@asynccontextmanager
async def _piped(out: int, sink: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.WriteTransport]]:
    """Two descriptors as the loop's own; it closes them."""
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader(limit=_MAX_ANSWER)
    reading, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(out, "rb"))
    writing, _ = await loop.connect_write_pipe(asyncio.Protocol, os.fdopen(sink, "wb"))
    try:
        yield reader, writing
    finally:
        # A transport whose other end is gone has let go of the loop already.
        for pipe in (writing, reading):
            if not pipe.is_closing():
                pipe.close()
