"""Starts the mesh's own processes by forking one that has already imported what they share.

Importing takes most of a service's start and is the same for all of them. `python -m deploy.local.forkserver <socket>`
imports once, then answers on a Unix socket: a request is one JSON message with the module to run and its environment,
and its log as a descriptor; the answer is the child's pid and a descriptor that tells when it ends. The children die
with this process, and it with the supervisor, so nothing is ever left behind.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

# What at least half of the services import and what starts no thread: a thread does not survive a fork.
SHARED: Final = (
    "aiohttp",
    "asyncpg",
    "jsonschema",
    "yaml",
    "shared.batches",
    "shared.bus",
    "shared.expressions",
    "shared.monitors.enforced",
    "shared.paging",
    "shared.postgres",
    "shared.redis",
    "shared.rpc.server",
    "shared.telemetry",
)
REQUEST_BYTES: Final = 128 * 1024
_SOCKET_FD: Final = 0
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15


def main() -> None:
    """Serves until it is told to end."""
    path = Path(sys.argv[1])
    for module in SHARED:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # so that collections in the children leave the shared pages alone
    signal.signal(signal.SIGCHLD, _reap)
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(64)
        while True:
            connection, _ = listener.accept()
            with connection:
                _answer(connection, listener)


def _answer(connection: socket.socket, listener: socket.socket) -> None:
    message, descriptors, _, _ = socket.recv_fds(connection, REQUEST_BYTES, 1)
    if not message:
        return  # somebody asked whether the server is there
    request: dict[str, Any] = json.loads(message)
    parent = os.getpid()
    # A child that ends at once stays a zombie, and its pid its own, until the descriptor to it is open.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    child = os.fork()
    if child == 0:
        listener.close()
        connection.close()
        _become(request["module"], request["name"], request["environment"], log=descriptors[0], parent=parent)
    ended = os.pidfd_open(child)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    try:
        socket.send_fds(connection, [str(child).encode()], [ended])
    except BrokenPipeError:
        signal.pidfd_send_signal(ended, signal.SIGKILL)  # who asked is gone
    for descriptor in (ended, *descriptors):
        os.close(descriptor)


def _become(module: str, name: str, environment: Mapping[str, str], *, log: int, parent: int) -> None:
    """Turns this fork into the process asked for. Never returns."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    os.setsid()  # a Ctrl-C in the terminal is the supervisor's to handle
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    libc.prctl(_PR_SET_NAME, name.encode()[:15])
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.environ.clear()
    os.environ.update(environment)
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.exit(0)


def _reap(*_: object) -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


if __name__ == "__main__":
    main()
