"""The program inside the outer sandbox: it gives each call a process with namespaces, limits and a filter of its own.

It is started once, runs nobody's code itself, and forks ahead of need: what a call does to its process is gone with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
from collections import deque
from importlib import import_module
from typing import Any, NoReturn

from services.tools import runner

READY = b"ready\n"
# A call hands over: what to do, its input, output, errors and answer, and the line that ends it when it is cut.
DESCRIPTORS = 6
ENDED = struct.Struct("i")
ANSWER = 3
_UID = 65534
_NEWUSER, _NEWPID = 0x10000000, 0x20000000
_NEWNS = 0x00020000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 1, 2, 4, 8, 0x4000, 0x40000
_PDEATHSIG, _SET_SECCOMP, _CAPBSET_DROP, _NO_NEW_PRIVS, _CAP_AMBIENT = 1, 22, 24, 38, 47
_LAST_CAPABILITY = 40
_CAPABILITIES = struct.pack("Ii6I", 0x20080522, 0, 0, 0, 0, 0, 0, 0)
# What ordinary functions import. More would make every fork dearer: asyncio alone triples it, and random seeds itself.
_COMMON = ("datetime", "math", "itertools", "functools")
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    with open("/sandbox/filter", "rb") as file:  # noqa: PTH123 - pathlib is one more import of a start-up
        program = file.read()
    for name in (*_COMMON, *sys.argv[3:]):
        import_module(name)
    gc.collect()
    gc.freeze()
    nursery = Nursery(program)
    nursery.breed()
    control.sendall(READY)
    Office(control, nursery, spares=int(sys.argv[2])).serve()


class Spare:
    """A process that stands in namespaces of its own and waits for its one call."""

    def __init__(self, pid: int, hand: socket.socket) -> None:
        self.pid = pid
        self.hand = hand


class Nursery:
    """Forks processes ahead of need."""

    def __init__(self, program: bytes) -> None:
        self._program = program
        self._proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
        self._own = os.open("/proc/self/ns/pid", os.O_RDONLY)
        self.waiting: deque[Spare] = deque()

    def breed(self) -> None:
        """One more, when it stands. Raises OSError when the host gives it no namespaces."""
        near, far = socket.socketpair()
        must(_libc.unshare(_NEWPID), "unshare")
        pid = os.fork()
        if pid == 0:
            near.close()
            for other in self.waiting:
                other.hand.close()
            self._wait(far)
        # The next one gets a process namespace of its own only from where we are ourselves.
        must(_libc.setns(self._own, _NEWPID), "setns")
        far.close()
        self.waiting.append(Spare(pid, near))

    def _wait(self, hand: socket.socket) -> NoReturn:
        """From here on it is the call's process. Never returns."""
        said: dict[str, Any] | None = None
        try:
            os.setsid()
            prctl(_PDEATHSIG, signal.SIGKILL)
            must(_libc.unshare(_NEWNS), "unshare")
            _mounts()
            self._become_nobody()
            confine(self._program)
            _, descriptors, _, _ = socket.recv_fds(hand, 1, DESCRIPTORS - 1)
            if len(descriptors) == DESCRIPTORS - 1:
                said = _work(descriptors)
        finally:
            answered(said)

    def _become_nobody(self) -> None:
        uid, gid = os.geteuid(), os.getegid()
        must(_libc.unshare(_NEWUSER), "unshare")
        for name, text in (("setgroups", "deny"), ("uid_map", f"{_UID} {uid} 1"), ("gid_map", f"{_UID} {gid} 1")):
            descriptor = os.open(f"self/{name}", os.O_WRONLY, dir_fd=self._proc)
            os.write(descriptor, text.encode())
            os.close(descriptor)


class Office:
    """Hands calls to spares, ends those whose line is cut, says how each ended."""

    def __init__(self, control: socket.socket, nursery: Nursery, *, spares: int) -> None:
        self._control = control
        self._nursery = nursery
        self._spares = spares
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._lines: dict[int, int] = {}  # of the calls that run: line to process
        self._processes: dict[int, tuple[int, int]] = {}  # and the process's descriptor to process and line

    def serve(self) -> None:
        """Until the service closes its end."""
        while True:
            idle = len(self._nursery.waiting) >= self._spares
            events = self._poll.poll(None if idle else 0)
            if not events:
                self._nursery.breed()
            for descriptor, _ in events:
                if descriptor == self._control.fileno():
                    if not self._begin():
                        return
                elif descriptor in self._lines:
                    self._cut(descriptor)
                elif descriptor in self._processes:
                    self._end(descriptor)

    def _begin(self) -> bool:
        _, descriptors, _, _ = socket.recv_fds(self._control, 1, DESCRIPTORS)
        if len(descriptors) != DESCRIPTORS:
            return False
        *others, line = descriptors
        if not self._nursery.waiting:
            self._nursery.breed()
        spare = self._nursery.waiting.popleft()
        process = os.pidfd_open(spare.pid)
        try:
            socket.send_fds(spare.hand, [b"c"], others)
        except OSError:
            os.kill(spare.pid, signal.SIGKILL)
        spare.hand.close()
        for descriptor in others:
            os.close(descriptor)
        self._lines[line] = spare.pid
        self._processes[process] = (spare.pid, line)
        self._poll.register(line, select.POLLIN)
        self._poll.register(process, select.POLLIN)
        return True

    def _cut(self, line: int) -> None:
        self._poll.unregister(line)
        os.kill(self._lines.pop(line), signal.SIGKILL)

    def _end(self, process: int) -> None:
        pid, line = self._processes.pop(process)
        self._poll.unregister(process)
        os.close(process)
        # The kernel ends every process of the namespace before its first one counts as ended.
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if self._lines.pop(line, None) is not None:
            self._poll.unregister(line)
        with contextlib.suppress(OSError):  # the service may have let go of it
            os.write(line, ENDED.pack(code))
        os.close(line)


def _work(descriptors: list[int]) -> dict[str, Any]:
    order, *others = descriptors
    task = _ordered(order)
    _descriptors(*others)
    limit(task["limits"])
    os.write(ANSWER, READY)
    if "command" in task:
        return _become(task["command"])
    if "module" in task:
        ran: dict[str, Any] = import_module("services.tools.module_runner").run(task)
        return ran
    return runner.run(task, say)


def _become(command: list[str]) -> dict[str, Any]:
    """The program takes this process; its answer is how it ends. Returns why it did not start."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606 - what the sandbox is for
    except (OSError, ValueError) as error:
        return {"status": "USER_ERROR", "message": f"{command[0]} does not start: {error}"[:500]}


def _ordered(order: int) -> dict[str, Any]:
    with os.fdopen(order, "rb") as file:
        found: dict[str, Any] = json.load(file)
    return found


def _descriptors(*wanted_in_order: int) -> None:
    """Input, output, errors, answer, as 0 to 3; nothing else is left."""
    for number, wanted in enumerate(wanted_in_order):
        os.dup2(wanted, number, inheritable=number < ANSWER)
    os.closerange(ANSWER + 1, 1 << 16)


def _mounts() -> None:
    closed = _MS_NOSUID | _MS_NODEV
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE, None)
    _processes(closed | _MS_NOEXEC | _MS_RDONLY)
    _mount("tmpfs", "/tmp", "tmpfs", closed, "size=16777216,nr_inodes=4096,mode=0777")  # noqa: S108 - in memory
    os.chdir("/tmp")  # noqa: S108


def _processes(flags: int) -> None:
    """The call's own processes, and nothing else that the kernel tells, where it can leave that out (Linux 5.8)."""
    try:
        _mount("proc", "/proc", "proc", flags, "subset=pid")
    except OSError:
        _mount("proc", "/proc", "proc", flags, None)


def limit(limits: dict[str, int]) -> None:
    """Hard limits, which what follows cannot raise again."""
    for name, value in limits.items():
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        least = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (least, least))


def confine(program: bytes) -> None:
    for capability in range(_LAST_CAPABILITY + 1):
        prctl(_CAPBSET_DROP, capability)
    prctl(_CAP_AMBIENT, 4)
    must(_libc.capset(_CAPABILITIES[:8], _CAPABILITIES[8:]), "capset")
    prctl(_NO_NEW_PRIVS, 1)
    load(program)


def load(program: bytes) -> None:
    """Puts a filter of system calls in force, for good."""
    code = ctypes.create_string_buffer(program)
    filters = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    must(_libc.prctl(_SET_SECCOMP, 2, filters, 0, 0), "seccomp")


def answered(said: dict[str, Any] | None) -> NoReturn:
    status = 1
    try:
        if said is not None:
            _flush()
            say(json.dumps(said).encode())
            status = 0
    finally:
        os._exit(status)


def say(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(ANSWER, view) :]


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:  # noqa: BLE001, S112 - the function may have put anything there
            continue


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None) -> None:
    texts = [text.encode() if text is not None else None for text in (source, target, kind, data)]
    must(_libc.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3]), f"mount {target}")


def prctl(option: int, value: int) -> None:
    must(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), f"prctl {option}")


def must(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), what)
