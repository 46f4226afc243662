"""One outer sandbox with the program that forks in it, seen from the service: start it, have it run calls, end it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from typing import Final, Self

from services.tools import isolation
from services.tools.errors import SandboxUnavailable
from services.tools.zygote import DESCRIPTORS, ENDED, READY

_READ: Final = 64 * 1024
_START_SECONDS: Final = 10
_REAP_SECONDS: Final = 5


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

    def __init__(self, out: int, err: int, answer: int, line: socket.socket) -> None:
        self.out, self.err, self.answer = out, err, answer
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
        self._loop.remove_reader(self._line.fileno())
        self._line.close()
        if not self.ended.done():
            self.ended.set_result(ENDED.unpack(data)[0] if len(data) == ENDED.size else -signal.SIGKILL)

    def cut(self) -> None:
        """Has the call and all it started killed."""
        if not self.ended.done():
            with contextlib.suppress(OSError):
                self._line.shutdown(socket.SHUT_WR)


class Jail:
    """A running outer sandbox."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self._process = process
        self._control = control
        control.settimeout(0)

    @classmethod
    async def start(cls, profile: isolation.Profile, *, spares: int) -> Self:
        """Raises SandboxUnavailable when the host gives no isolation."""
        near, far = socket.socketpair()
        try:
            process = _spawn(profile, far, spares)
        except OSError as error:
            near.close()
            raise SandboxUnavailable("bubblewrap cannot be started on this host", why=str(error)[:200]) from error
        jail = cls(process, near)
        try:
            await jail._stand()
        except BaseException:
            await asyncio.shield(jail.close())
            raise
        return jail

    async def _stand(self) -> None:
        said = b""
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(_START_SECONDS):
                said = await asyncio.get_running_loop().sock_recv(self._control, len(READY))
        if said != READY:
            raise SandboxUnavailable("this host gives no isolation to run functions in", why=self._last_words())

    def _last_words(self) -> str:
        assert self._process.stderr is not None  # noqa: S101 - a pipe
        os.set_blocking(self._process.stderr.fileno(), False)
        return (self._process.stderr.read(200) or b"").decode(errors="replace")

    @property
    def stands(self) -> bool:
        return self._process.poll() is None

    def call(self, order: bytes, *, given: int | None = None) -> Call:
        """Starts a call, with `given` as its input. Raises OSError when the sandbox is gone."""
        out, err, answer = os.pipe(), os.pipe(), os.pipe()
        source = os.open("/dev/null", os.O_RDONLY) if given is None else os.dup(given)
        near, far = socket.socketpair()
        memory = os.memfd_create("order")
        inside = (memory, source, out[1], err[1], answer[1], far.fileno())
        assert len(inside) == DESCRIPTORS  # noqa: S101 - what the program inside counts on
        try:
            with open(memory, "wb", closefd=False) as file:
                file.write(order)
            os.lseek(memory, 0, os.SEEK_SET)
            socket.send_fds(self._control, [b"c"], inside)
        except OSError:
            for descriptor in (out[0], err[0], answer[0], near.detach()):
                os.close(descriptor)
            raise
        finally:
            for descriptor in (*inside[:-1], far.detach()):
                os.close(descriptor)
        return Call(out[0], err[0], answer[0], near)

    async def close(self) -> None:
        """Ends the sandbox and all that is in it, and waits until it is gone.

        Until bubblewrap has set up its inner process that one does not die with the outer, so the group is killed.
        """
        self._control.close()
        if self.stands:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REAP_SECONDS):
                await self._gone()
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


def _spawn(profile: isolation.Profile, far: socket.socket, spares: int) -> subprocess.Popen[bytes]:
    """In this thread, whose end ends the sandbox."""
    with far, isolation.launch(profile, far.fileno(), spares=spares) as (command, descriptors):
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=descriptors,
            env={},
            start_new_session=True,
        )
