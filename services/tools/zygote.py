"""The program inside the outer sandbox: it gives each call a process with namespaces, limits and a filter of its own.

It is started once, runs nobody's code itself, and forks ahead of need: what a call does to its process is gone with it.
Each process that stands ready is handed to the service, which gives it its one order directly.
"""

from __future__ import annotations

import _socket
import contextlib
import ctypes
import gc
import json
import os
import resource
import select
import signal
import struct
import sys
from importlib import import_module
from typing import Any, NoReturn

from services.tools import runner

READY = b"ready\n"
# What a spare is handed over with: the socket that takes its order and the line that ends it when it is cut.
SPARE = b"s"
SPARE_DESCRIPTORS = 2
# An order: its length (0: it is in a file) and whether it has an input. With it go its output, its errors, its answer,
# then its input and its file.
ORDER = struct.Struct("I?")
MOST_DESCRIPTORS = 5
ENDED = struct.Struct("i")
ANSWER = 3
_READ = 64 * 1024
_NEVER_STOOD = 3
_UID = 65534
_NEWUSER, _NEWPID = 0x10000000, 0x20000000
_NEWNS = 0x00020000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 1, 2, 4, 8, 0x4000, 0x40000
_PDEATHSIG, _SET_SECCOMP, _CAPBSET_DROP, _NO_NEW_PRIVS, _CAP_AMBIENT = 1, 22, 24, 38, 47
_LAST_CAPABILITY = 40
_CAPABILITIES = struct.pack("Ii6I", 0x20080522, 0, 0, 0, 0, 0, 0, 0)
# What ordinary functions import. More would make every fork dearer: asyncio alone triples it, and random seeds itself.
_COMMON = ("datetime", "math", "itertools", "functools")
# What every call's process gives up.
_WITHOUT = (*((_CAPBSET_DROP, one) for one in range(_LAST_CAPABILITY + 1)), (_CAP_AMBIENT, 4), (_NO_NEW_PRIVS, 1))
_libc = ctypes.CDLL(None, use_errno=True)
_REHEARSAL = (
    b'{"code": "def f(x):\\n  return x\\n", "entry_point": "f", "arguments": {"x": [1]}, "allowed_imports": ["json"]}'
)


def main() -> None:
    control = _socket.socket(fileno=int(sys.argv[1]))
    with open("/sandbox/filter", "rb") as file:  # noqa: PTH123 - pathlib is one more import of a start-up
        rules = Filter(file.read())
    for name in ("unshare", "setns", "mount", "prctl", "capset"):
        getattr(_libc, name)  # looked up once, and not in every process
    office = Office(control, Nursery(control, rules), most=int(sys.argv[2]))
    for name in sys.argv[3:]:
        import_module(name)
    office.breed()  # whoever waits for the first need not wait for what comes now
    for name in _COMMON:
        import_module(name)
    _rehearsed()
    gc.collect()
    gc.freeze()
    office.serve()


def _rehearsed() -> None:
    """Touches what a call touches: the memory of a process that waits is its own before its call comes."""
    json.dumps(runner.run(json.loads(_REHEARSAL.decode()))).encode()


class Nursery:
    """Forks processes ahead of need."""

    def __init__(self, control: _socket.socket, rules: Filter) -> None:
        self._control = control
        self._rules = rules
        self._proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
        self._own = os.open("/proc/self/ns/pid", os.O_RDONLY)
        uid, gid = os.geteuid(), os.getegid()
        maps = (("setgroups", "deny"), ("uid_map", f"{_UID} {uid} 1"), ("gid_map", f"{_UID} {gid} 1"))
        self._maps = [(f"self/{name}", text.encode()) for name, text in maps]

    def breed(self) -> tuple[int, int]:
        """One more, handed to the service: the process and its line. Raises OSError without namespaces."""
        near, far = _socket.socketpair()
        line, end = _socket.socketpair()
        near.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)  # its first word says which process it is
        must(_libc.unshare(_NEWPID), "unshare")
        pid = os.fork()
        if pid == 0:
            near.close()
            self._wait(far)
        # The next one gets a process namespace of its own only from where we are ourselves.
        must(_libc.setns(self._own, _NEWPID), "setns")
        send(self._control, SPARE, near.fileno(), end.fileno())
        for other in (near, far, end):
            other.close()
        return pid, line.detach()

    def _wait(self, hand: _socket.socket) -> NoReturn:
        """From here on it is the call's process. Never returns."""
        said: dict[str, Any] | None = None
        stood = False
        try:
            os.setsid()
            must(_libc.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
            must(_libc.unshare(_NEWNS), "unshare")
            _mounts()
            self._become_nobody()
            confine(self._rules)
            _rehearsed()
            stood = True
            with contextlib.suppress(BrokenPipeError):  # its order may be there already
                hand.send(SPARE)
            if descriptors := received(hand):
                said = _work(*descriptors)
        finally:
            if not stood:
                os._exit(_NEVER_STOOD)
            answered(said)

    def _become_nobody(self) -> None:
        must(_libc.unshare(_NEWUSER), "unshare")
        for name, text in self._maps:
            descriptor = os.open(name, os.O_WRONLY, dir_fd=self._proc)
            os.write(descriptor, text)
            os.close(descriptor)


class Office:
    """Keeps as many processes as there may be, ends those whose line is cut, says how each ended."""

    def __init__(self, control: _socket.socket, nursery: Nursery, *, most: int) -> None:
        self._control = control.fileno()
        self._nursery = nursery
        self._most = most
        self._poll = select.poll()
        self._poll.register(self._control, select.POLLIN)
        self._lines: dict[int, int] = {}  # of those not cut: line to process
        self._processes: dict[int, tuple[int, int]] = {}  # and the process's descriptor to process and line

    def serve(self) -> None:
        """Until the service closes its end."""
        while True:
            enough = len(self._processes) >= self._most
            events = self._poll.poll(None if enough else 0)
            if not events:
                self.breed()
            for descriptor, _ in events:
                if descriptor == self._control:
                    return
                if descriptor in self._lines:
                    self._cut(descriptor)
                elif descriptor in self._processes and self._end(descriptor) == _NEVER_STOOD:
                    return  # nor would the next

    def breed(self) -> None:
        """One more."""
        pid, line = self._nursery.breed()
        process = os.pidfd_open(pid)
        self._lines[line] = pid
        self._processes[process] = (pid, line)
        self._poll.register(line, select.POLLIN)
        self._poll.register(process, select.POLLIN)

    def _cut(self, line: int) -> None:
        self._poll.unregister(line)
        os.kill(self._lines.pop(line), signal.SIGKILL)

    def _end(self, process: int) -> int:
        """Its exit status."""
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
        return code


def send(socket: _socket.socket, data: bytes, *descriptors: int) -> None:
    """Data, with descriptors."""
    packed = struct.pack(f"{len(descriptors)}i", *descriptors)
    socket.sendmsg([data], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)])


def received(hand: _socket.socket) -> tuple[bytes, list[int]] | None:
    """An order and what came with it: output, errors, answer, input. None when nobody wants anything any more."""
    data, ancillary, _, _ = hand.recvmsg(_READ, _socket.CMSG_SPACE(MOST_DESCRIPTORS * 4))
    if not data:
        return None
    packed = b"".join(found for _, kind, found in ancillary if kind == _socket.SCM_RIGHTS)
    descriptors = list(struct.unpack(f"{len(packed) // 4}i", packed))
    length, given = ORDER.unpack_from(data)
    if not length:
        with open(descriptors.pop(), "rb") as file:  # noqa: PTH123 - a descriptor
            data += file.read()
    while len(data) < ORDER.size + length:
        data += hand.recv(_READ)
    if not given:
        descriptors.append(os.open("/dev/null", os.O_RDONLY))
    return data[ORDER.size :], descriptors


def _work(order: bytes, descriptors: list[int]) -> dict[str, Any]:
    task = json.loads(order.decode())
    out, err, answer, source = descriptors
    _descriptors(source, out, err, answer)
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


def confine(rules: Filter) -> None:
    for option, value in _WITHOUT:
        must(_libc.prctl(option, value, 0, 0, 0), "prctl")
    must(_libc.capset(_CAPABILITIES[:8], _CAPABILITIES[8:]), "capset")
    rules.load()


class Filter:
    """A filter of system calls, ready to be put in force."""

    def __init__(self, program: bytes) -> None:
        self._code = ctypes.create_string_buffer(program)
        self._rules = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(self._code))

    def load(self) -> None:
        """For good."""
        must(_libc.prctl(_SET_SECCOMP, 2, self._rules, 0, 0), "seccomp")


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


def must(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), what)
