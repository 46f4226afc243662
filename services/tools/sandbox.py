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

from services.tools import answer
from services.tools.answer import Answer, Outcome, Printed, Status
from services.tools.errors import SandboxUnavailable
from services.tools.executor import Isolation
from services.tools.isolation import FUNCTIONS, Profile
from services.tools.jail import Call, Drain, Jail, TooMuch
from services.tools.runner import MAX_EVENT, MAX_EVENTS
from services.tools.zygote import READY
from shared.errors import ResourceExhausted
from shared.log import log

_MIB: Final = 1024 * 1024
_MAX_OUTPUT: Final = 64 * 1024
# What the compiler and Python take beside a module's own memory.
_RUNTIME_MIB: Final = 512
_RUNTIME_THREADS: Final = 16
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
class ModuleCall:
    """A WebAssembly module, which reads the arguments and prints the result. `fuel` 0 is no limit of instructions."""

    module: str  # base64
    arguments: Mapping[str, object]
    memory_mib: int
    fuel: int
    timeout: timedelta

    def order(self) -> bytes:
        order = {
            "module": self.module,
            "arguments": json.dumps(dict(self.arguments)),
            "memory": self.memory_mib * _MIB,
            "fuel": self.fuel,
            "limits": _limits(self.timeout, memory_mib=self.memory_mib + _RUNTIME_MIB, processes=_RUNTIME_THREADS),
        }
        return json.dumps(order).encode()


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


class Places:
    """How many calls run at once, and how many may wait."""

    def __init__(self, at_once: int) -> None:
        self._free = asyncio.Semaphore(at_once)
        self._most = at_once * (1 + _WAITING_PER_PLACE)
        self.present = 0

    def check_room(self) -> None:
        """Raises ResourceExhausted when too many wait already."""
        if self.present >= self._most:
            raise ResourceExhausted("too many functions wait for a sandbox", retry_after=timedelta(seconds=1))

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """A place, when there is one."""
        self.present += 1
        try:
            async with self._free:
                yield
        finally:
            self.present -= 1


class Backend(Protocol):
    """A kind of sandbox. All of them give the same outcomes; they differ in how strongly they hold."""

    @property
    def isolation(self) -> Isolation:
        """How strongly."""

    def check_room(self) -> None:
        """Raises ResourceExhausted when too many wait already."""

    async def prepare(self) -> None:
        """Makes it ready before a call needs it, where that can be."""

    async def run(self, call: SandboxCall, printed: Printed) -> Outcome:
        """Runs to an outcome, always. Raises SandboxUnavailable where nothing ran."""


class Sandbox:
    """Runs calls, a few at once. The outer sandbox is started with the first call and serves until the end.

    `inside` is what the replica itself runs in, which every call then has around it as well.
    """

    def __init__(self, *, at_once: int, profile: Profile = FUNCTIONS, inside: Isolation = Isolation.NONE) -> None:
        self.isolation = max(Isolation.NAMESPACES, inside)
        self._name = f"{inside.name.lower()}+{profile.name}" if inside else profile.name
        self._profile = profile
        self._places = Places(at_once)
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
        self._places.check_room()

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
        async with self._places.taken():
            began = time.monotonic()
            status, found = await self._run(call, printed)
            elapsed = timedelta(seconds=time.monotonic() - began)
        return Outcome(
            status=status,
            result=found.get("result"),
            message=found.get("message", ""),
            trace=found.get("trace", ""),
            elapsed=elapsed,
            isolation=self._name,
        )

    async def _run(self, call: SandboxCall, printed: Printed) -> Answer:
        async with self._started(call) as running:
            conversation = Conversation(running, printed, program=isinstance(call, ProgramCall))
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
            async with self._places.taken(), self._started(call, given=source) as running:
                os.close(source)
                source = -1
                conversation = Conversation(running, lambda *_: None, program=False, listening=False)
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


class Running(Protocol):
    """A call that runs: its output, errors and answer, and its exit status when it has ended."""

    out: int
    err: int
    answer: int
    ended: asyncio.Future[int]


class Conversation:
    """What comes out of one call."""

    def __init__(self, running: Running, printed: Printed, *, program: bool = False, listening: bool = True) -> None:
        self._running = running
        self._program = program
        self._said = _Said(printed)
        out = [Drain(running.out, limit=_MAX_OUTPUT, tell=_Text("stdout", printed))] if listening else []
        self._drains = [
            *out,
            Drain(running.err, limit=_MAX_OUTPUT, tell=_Text("stderr", printed)),
            Drain(running.answer, limit=_MAX_ANSWER, tell=self._said),
        ]

    async def answer(self) -> Answer:
        """Raises TooMuch, and SandboxUnavailable when the call never stood in its sandbox."""
        await asyncio.gather(asyncio.shield(self._running.ended), *(drain.done for drain in self._drains))
        code = self._running.ended.result()
        if not self._said.ready:
            raise SandboxUnavailable("the host gave a call no isolation", why=f"status {code}")
        if self._said.disturbed:
            return answer.disturbed()
        if said := self._said.rest:
            return answer.read(said)
        return answer.exited(code) if self._program else answer.ended(code)

    def close(self) -> None:
        for drain in self._drains:
            drain.close()


class _Said:
    """What comes over the answer's pipe: a line when the sandbox stands, a line for each event, then the answer."""

    def __init__(self, printed: Printed) -> None:
        self._printed = printed
        self._data = bytearray()
        self._events = 0
        self.ready = False
        self.disturbed = False

    @property
    def rest(self) -> bytes:
        return bytes(self._data)

    def __call__(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\n")) >= 0:
            line = bytes(self._data[: end + 1])
            del self._data[: end + 1]
            if not self.ready:
                self.ready = line == READY
                self.disturbed |= not self.ready
            else:
                self._event(line)

    def _event(self, line: bytes) -> None:
        self._events += 1
        said = answer.event(line) if self._events <= MAX_EVENTS and len(line) <= MAX_EVENT + 1 else None
        if said is None:
            self.disturbed = True
        else:
            self._printed(answer.EMITTED, said)


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
