"""One function, once, in a sandbox of its own: no network, no files, no other process, limits on everything."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Final, Protocol, Self

from services.tools.answer import Answer, Outcome, Printed, Status
from services.tools.cgroups import NAME as CGROUP
from services.tools.cgroups import Groups
from services.tools.conversation import Conversation, Fetch
from services.tools.errors import SandboxUnavailable
from services.tools.executor import Isolation
from services.tools.isolation import FUNCTIONS, Profile
from services.tools.jail import Call, Jail
from services.tools.orders import ProgramCall, SandboxCall, ScriptCall, attaches, share
from shared.errors import ResourceExhausted
from shared.log import log

_MAX_ANSWER: Final = 1024 * 1024
_WAITING_PER_PLACE: Final = 16
# A call that is cut is killed at once; how long its caller waits to see it gone.
_GONE_SECONDS: Final = 0.05
_STARTS: Final = 2


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

    async def run(self, call: SandboxCall, printed: Printed, fetch: Fetch | None = None) -> Outcome:
        """Runs to an outcome, always. `fetch` answers what the call asks for from outside; without it nothing is there.

        Raises SandboxUnavailable where nothing ran.
        """


class Sandbox:
    """Runs calls, a few at once. The outer sandbox is started with the first call and serves until the end.

    `inside` is what the replica itself runs in, which every call then has around it as well; with `groups` the kernel
    counts each call's memory, processes and processor time as a whole, beside the limits of each process.
    """

    def __init__(
        self,
        *,
        at_once: int,
        profile: Profile = FUNCTIONS,
        inside: Isolation = Isolation.NONE,
        groups: Groups | None = None,
    ) -> None:
        self.isolation = max(Isolation.NAMESPACES, inside)
        around = (inside.name.lower(),) if inside else ()
        self._name = "+".join((*around, profile.name, *((CGROUP,) if groups else ())))
        self._groups = groups
        self._profile = profile
        self._places = Places(at_once)
        # Those that run, those that wait for a call, and one that is being made.
        self._most = 2 * at_once + 1
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

    @property
    def full(self) -> bool:
        """Whether every process that may wait for a call does."""
        return self._jail is not None and self._jail.waiting == self._most

    async def prepare(self) -> None:
        """Starts the outer sandbox before a call needs it. On a host without isolation every call is refused."""
        try:
            await self._standing()
        except SandboxUnavailable as error:
            log.warning("sandbox.unavailable", why=error.facts.get("why", ""))

    async def run(self, call: SandboxCall, printed: Printed, fetch: Fetch | None = None) -> Outcome:
        """Runs to an outcome, always. `printed` is told the stream and the text as they come.

        Raises SandboxUnavailable when the host gives no isolation; nothing runs then.
        """
        async with self._places.taken():
            began = time.monotonic()
            status, found = await self._run(call, printed, fetch)
            elapsed = timedelta(seconds=time.monotonic() - began)
        return Outcome(
            status=status,
            result=found.get("result"),
            message=found.get("message", ""),
            trace=found.get("trace", ""),
            elapsed=elapsed,
            isolation=self._name,
            artefacts=found["artefacts"],
        )

    async def _run(self, call: SandboxCall, printed: Printed, fetch: Fetch | None) -> Answer:
        program = isinstance(call, ProgramCall)
        with _replies(fetch) as (source, sink):
            async with self._started(call, given=source) as running:
                until = time.monotonic() + call.timeout.total_seconds()
                conversation = Conversation(
                    running, printed, program=program, fetch=fetch, replies=sink, attaches=attaches(call)
                )
                try:
                    status, found = await conversation.heard(call.timeout, until=until)
                    if status is Status.CRASHED and running.ran_out_of_memory:
                        status, found = Status.MEMORY_LIMIT, {"message": "the call needs more memory than its limit"}
                    return status, found | {"artefacts": conversation.artefacts}
                finally:
                    if conversation.answered:
                        running.leave()
                    else:
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
        running = await self._begun(call, given)
        try:
            yield running
        finally:
            if not running.left:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_GONE_SECONDS):
                        await asyncio.shield(running.ended)

    async def _begun(self, call: SandboxCall, given: int | None) -> Call:
        order = call.order()
        for _ in range(_STARTS):  # it may have ended between two calls; a new one takes its place once
            jail = await self._standing()
            try:
                return await jail.call(order, given=given, share=share(call))
            except OSError:
                await self._replace(jail)
        raise SandboxUnavailable("this host gives no isolation to run functions in", why="its processes end at once")

    async def _standing(self) -> Jail:
        async with self._starting:
            if self._jail and not self._jail.stands:
                await self._jail.close()
                self._jail = None
            if self._jail is None:
                self._jail = await Jail.start(self._profile, most=self._most, groups=self._groups)
            return self._jail

    async def _replace(self, gone: Jail) -> None:
        async with self._starting:
            if self._jail is gone:
                self._jail = None
                await gone.close()


@contextmanager
def _replies(fetch: Fetch | None) -> Iterator[tuple[int | None, int | None]]:
    """A pipe for what is fetched, its end for the call first; none where nothing is."""
    if fetch is None:
        yield None, None
        return
    source, sink = os.pipe()
    try:
        yield source, sink
    finally:
        os.close(source)
        os.close(sink)


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
