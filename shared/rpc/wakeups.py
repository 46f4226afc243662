"""Lets gRPC's thread wake a busy event loop without waiting for it.

For each thing that happens to a call, gRPC's own thread writes one byte to a pair of sockets; the loop, once a turn,
reads one, though it then handles all that happened. With more than one thing a turn the bytes pile up, some hundreds
fill the sockets, the thread waits for room, and from then on each turn handles one thing: calls are accepted, messages
sent and health checks answered at the pace of turns, for as long as the loop is busy. Here the loop reads all the bytes
there are; the thread, where there is no room, goes on: the bytes that are there wake the loop as well.
"""

from __future__ import annotations

import socket
from importlib import import_module
from types import SimpleNamespace
from typing import Any, Final

_ALL: Final = 65536


class _Drained(socket.socket):
    """Read by gRPC one byte at a time; gives all there are."""

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        return super().recv(max(bufsize, _ALL), flags)


def never_in_the_way() -> None:
    """For all of gRPC's asyncio side that is made from here on in this process."""
    within: Any = import_module("grpc._cython.cygrpc")  # which has no types
    within.socket = SimpleNamespace(**{**vars(socket), "socketpair": pair})


def pair() -> tuple[socket.socket, socket.socket]:
    """Sockets to read from and to write to; writing never waits."""
    reading, writing = socket.socketpair()
    writing.settimeout(0)
    return _Drained(fileno=reading.detach()), writing
