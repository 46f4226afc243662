"""The supervisor's end of the fork server: ask for a process, know when it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_PID_BYTES: Final = 32
_ANSWER_SECONDS: Final = 10.0


class Forked:
    """A process that another process is the parent of. How it ended is not known, only that it did."""

    def __init__(self, pid: int, ended: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._descriptor = ended
        self._ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(ended, self._on_end)

    def send_signal(self, number: int) -> None:
        """Raises ProcessLookupError when it has ended."""
        if self.returncode is not None:
            raise ProcessLookupError(self.pid)
        signal.pidfd_send_signal(self._descriptor, number)

    async def wait(self) -> int:
        """Waits for the end."""
        await self._ended.wait()
        return 0

    def _on_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)
        self.returncode = 0
        self._ended.set()


async def fork(server: Path, module: str, *, name: str, environment: Mapping[str, str], log: int) -> Forked:
    """Runs a module in a fork of the server. Raises OSError when the server does not answer."""
    request = json.dumps({"module": module, "name": name, "environment": dict(environment)}).encode()
    pid, ended = await asyncio.to_thread(_ask, server, request, log)
    return Forked(pid, ended)


def answers(server: Path) -> bool:
    """Whether the server takes requests."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        return connection.connect_ex(str(server)) == 0


def _ask(server: Path, request: bytes, log: int) -> tuple[int, int]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(_ANSWER_SECONDS)
        connection.connect(str(server))
        socket.send_fds(connection, [request], [log])
        answer, descriptors, _, _ = socket.recv_fds(connection, _PID_BYTES, 1)
    if not answer:
        raise ConnectionError("the fork server ended before it answered")
    return int(answer), descriptors[0]
