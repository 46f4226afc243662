"""One outer sandbox with the program that forks in it, seen from the service: start it, have it run calls, end it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Self

from services.tools import isolation
from services.tools.cgroups import Group, Groups, Share
from services.tools.errors import SandboxUnavailable
from services.tools.zygote import ENDED, ORDER, SPARE, SPARE_DESCRIPTORS

_READ: Final = 64 * 1024
_START_SECONDS: Final = 10
_REAP_SECONDS: Final = 5
_ATTEMPTS: Final = 3
_CREDENTIALS: Final = struct.Struct("3i")
# How long a call that has answered may take to end.
_ENDING_SECONDS: Final = 0.05
# What a socket takes at once.
_SHORT_ORDER: Final = 32 * 1024


class TooMuch(Exception):
    """More came out than allowed."""


class Drain:
    """Reads a descriptor to its end, as it fills. `done` fails with TooMuch over the limit."""

    def __init__(self, descriptor: int, *, limit: int, tell: Callable[[bytes], None]) -> None:
        self._descriptor = descriptor
        self._room = limit
        self._tell = tell
        self._ended = False
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self._loop.create_future()
        os.set_blocking(descriptor, False)
        self._loop.add_reader(descriptor, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, _READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data[: self._room]:
            self._tell(data[: self._room])
        if len(data) > self._room:
            self._end(TooMuch())
        elif not data:
            self._end(None)
        self._room -= len(data)

    def _end(self, error: TooMuch | None) -> None:
        self._ended = True
        self._loop.remove_reader(self._descriptor)
        if self.done.done():
            return
        if error:
            self.done.set_exception(error)
        else:
            self.done.set_result(None)

    def close(self) -> None:
        """Stops reading and closes the descriptor; what is in it already is still told."""
        if not self._ended:
            self._read()
        self._end(None)
        if not self.done.cancelled():
            self.done.exception()
        os.close(self._descriptor)


class Call:
    """One call inside: its output, its errors, its answer, and the line that ends it when it is cut."""

    def __init__(self, out: int, err: int, answer: int, line: socket.socket, group: Group | None) -> None:
        self.out, self.err, self.answer = out, err, answer
        self.group = group
        self.ran_out_of_memory = False
        self.left = False
        self._line = line
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[int] = self._loop.create_future()
        line.settimeout(0)
        self._loop.add_reader(line.fileno(), self._heard)

    def _heard(self) -> None:
        try:
            data = self._line.recv(ENDED.size)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.end(ENDED.unpack(data)[0] if len(data) == ENDED.size else -signal.SIGKILL)

    def end(self, code: int) -> None:
        """It has ended so."""
        if not self.ended.done():
            self._loop.remove_reader(self._line.fileno())
            self._line.close()
            self.ended.set_result(code)

    def cut(self) -> None:
        """Has the call and all it started killed."""
        if not self.ended.done():
            with contextlib.suppress(OSError):
                self._line.shutdown(socket.SHUT_WR)

    def leave(self) -> None:
        """It has answered and closed what it had: it is ending, and cut where it is not."""
        self.left = True
        if not self.ended.done():
            self._loop.call_later(_ENDING_SECONDS, self.cut)


@dataclass(frozen=True, slots=True)
class Spare:
    """A process that waits for its one order: where it is given, and the line that ends it."""

    hand: socket.socket
    line: socket.socket

    def close(self) -> None:
        self.hand.close()
        self.line.close()


class Jail:
    """A running outer sandbox, and the processes in it that wait for a call."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket, groups: Groups | None) -> None:
        self._process = process
        self._groups = groups
        self._control = control
        self._spares: asyncio.Queue[Spare | None] = asyncio.Queue()
        self._calls: set[Call] = set()
        control.settimeout(0)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(control.fileno(), self._handed)

    @classmethod
    async def start(cls, profile: isolation.Profile, *, most: int, groups: Groups | None = None) -> Self:
        """With at most so many processes. Raises SandboxUnavailable when the host gives no isolation."""
        near, far = socket.socketpair()
        try:
            process = _spawn(profile, far, most)
        except OSError as error:
            near.close()
            raise SandboxUnavailable("bubblewrap cannot be started on this host", why=str(error)[:200]) from error
        jail = cls(process, near, groups)
        try:
            await jail._stand()
        except BaseException:
            await asyncio.shield(jail.close())
            raise
        return jail

    async def _stand(self) -> None:
        first = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START_SECONDS):
                first = await self._spares.get()
        self._spares.put_nowait(first)
        if first is None:
            raise SandboxUnavailable("this host gives no isolation to run functions in", why=self._last_words())

    def _handed(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._control, 1, SPARE_DESCRIPTORS)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        if data:
            hand, line = (socket.socket(fileno=number) for number in descriptors)
            hand.settimeout(0)
            self._spares.put_nowait(Spare(hand, line))
        else:
            self._loop.remove_reader(self._control.fileno())
            self._spares.put_nowait(None)

    def _last_words(self) -> str:
        assert self._process.stderr is not None  # noqa: S101 - a pipe
        os.set_blocking(self._process.stderr.fileno(), False)
        return (self._process.stderr.read(200) or b"").decode(errors="replace")

    @property
    def stands(self) -> bool:
        return self._process.poll() is None

    @property
    def waiting(self) -> int:
        """How many processes wait for a call."""
        return self._spares.qsize()

    async def call(self, order: bytes, *, given: int | None = None, share: Share | None = None) -> Call:
        """Starts a call, with `given` as its input, in a group with its share where there are groups.

        Raises OSError when the sandbox is gone.
        """
        for _ in range(_ATTEMPTS):  # who waits for a call may have been killed
            spare = await self._spares.get()
            if spare is None:
                self._spares.put_nowait(None)
                break
            with spare.hand:
                group = None
                try:
                    if self._groups and share:
                        group = self._groups.group(share, await self._pid(spare))
                    return self._ordered(spare, order, given, group)
                except OSError:
                    spare.line.close()
                    if group:
                        group.end()
        raise OSError(errno.EPIPE, "the sandbox is gone")

    async def _pid(self, spare: Spare) -> int:
        """Which process it is on this host, by the kernel's word, once it stands. Raises OSError when it is gone."""
        readable = asyncio.Event()
        self._loop.add_reader(spare.hand.fileno(), readable.set)
        try:
            await readable.wait()
        finally:
            self._loop.remove_reader(spare.hand.fileno())
        said, ancillary, _, _ = spare.hand.recvmsg(len(SPARE), socket.CMSG_SPACE(_CREDENTIALS.size))
        told = [data for _, kind, data in ancillary if kind == socket.SCM_CREDENTIALS]
        if said != SPARE or not told:
            raise OSError(errno.ESRCH, "the process is gone")
        pid: int = _CREDENTIALS.unpack(told[0])[0]
        return pid

    def _ordered(self, spare: Spare, order: bytes, given: int | None, group: Group | None) -> Call:
        out, err, answer = os.pipe(), os.pipe(), os.pipe()
        inside = [out[1], err[1], answer[1]] + ([given] if given is not None else [])
        try:
            with _inline(order) as (length, data, file):
                head = ORDER.pack(length, given is not None)
                socket.send_fds(spare.hand, [head, data], [*inside, *file])
        except OSError:
            for descriptor in (out[0], err[0], answer[0]):
                os.close(descriptor)
            raise
        finally:
            for descriptor in (out[1], err[1], answer[1]):
                os.close(descriptor)
        call = Call(out[0], err[0], answer[0], spare.line, group)
        self._calls.add(call)
        call.ended.add_done_callback(lambda _: self._left(call))
        return call

    def _left(self, call: Call) -> None:
        self._calls.discard(call)
        if call.group:
            call.ran_out_of_memory = call.group.ran_out_of_memory
            call.group.end()

    async def close(self) -> None:
        """Ends the sandbox and all that is in it, and waits until it is gone.

        Until bubblewrap has set up its inner process that one does not die with the outer, so the group is killed.
        """
        if self._control.fileno() >= 0:
            self._loop.remove_reader(self._control.fileno())
        self._control.close()
        if self.stands:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REAP_SECONDS):
                await self._gone()
        for call in tuple(self._calls):
            call.end(-signal.SIGKILL)
        while not self._spares.empty():
            if spare := self._spares.get_nowait():
                spare.close()
        self._spares.put_nowait(None)
        if self._process.stderr:
            self._process.stderr.close()

    async def _gone(self) -> None:
        if not self.stands:
            return
        gone, loop, process = asyncio.Event(), asyncio.get_running_loop(), os.pidfd_open(self._process.pid)
        loop.add_reader(process, gone.set)
        try:
            await gone.wait()
        finally:
            loop.remove_reader(process)
            os.close(process)
        self._process.wait()


@contextmanager
def _inline(order: bytes) -> Iterator[tuple[int, bytes, list[int]]]:
    """A short order goes with its descriptors; a long one is a file among them."""
    if len(order) <= _SHORT_ORDER:
        yield len(order), order, []
        return
    memory = os.memfd_create("order")
    try:
        with open(memory, "wb", closefd=False) as file:
            file.write(order)
        os.lseek(memory, 0, os.SEEK_SET)
        yield 0, b"", [memory]
    finally:
        os.close(memory)


def _spawn(profile: isolation.Profile, far: socket.socket, most: int) -> subprocess.Popen[bytes]:
    """In this thread, whose end ends the sandbox."""
    with far, isolation.launch(profile, far.fileno(), most=most) as (command, descriptors):
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=descriptors,
            env={},
            start_new_session=True,
        )
