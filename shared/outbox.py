"""The outbox: records another service must get, kept in a local file until it has them, whatever dies meanwhile.

A record is in the file before `keep` returns: it survives the death of this process (of the machine only with `sync`).
It is delivered at least once and perhaps again, so the receiver must know a record by its key. The sender may deliver a
record itself and say `done`; what is not done in time is delivered by `run`, oldest first.
"""

from __future__ import annotations

import asyncio
import os
import struct
import zlib
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from shared.clock import Clock
from shared.errors import MeshError
from shared.log import log

_HEAD: Final = struct.Struct(">BQII")  # kind, number, length, checksum of the record
_KEPT: Final = 1
_DONE: Final = 2
_FIRST_PAUSE: Final = timedelta(milliseconds=100)
_LONGEST_PAUSE: Final = timedelta(seconds=5)

Deliver = Callable[[bytes], Awaitable[object]]


class Outbox:
    """Records by number. Only one process may have the file open."""

    def __init__(self, path: Path, *, clock: Clock, patience: timedelta, sync: bool = False) -> None:
        self._path = path
        self._clock = clock
        self._patience = patience
        self._sync = sync
        self._kept: dict[int, tuple[timedelta, bytes]] = {}
        self._last = 0
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        """Opens the file and finds what an earlier process left; a record cut short by its death was never kept."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("a+b")
        self._read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file:
            self._file.close()
            self._file = None

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, record: bytes) -> int:
        """Writes the record; its number, for `done`."""
        self._last += 1
        self._write(_KEPT, self._last, record)
        self._kept[self._last] = (self._clock.monotonic(), record)
        return self._last

    def done(self, number: int) -> None:
        """The receiver has it. With nothing left the file is empty again."""
        if self._kept.pop(number, None) is None:
            return
        if self._kept:
            self._write(_DONE, number, b"")
        else:
            self._opened().truncate(0)

    async def run(self, deliver: Deliver) -> None:
        """Delivers what is not done in time, for ever. A record that the receiver will never take is logged and let go:
        `deliver` raises a MeshError that is not retryable.
        """
        pause = _FIRST_PAUSE
        while True:
            number, wait = self._next()
            if number is None or wait > timedelta():
                await asyncio.sleep(min(max(wait, _FIRST_PAUSE), self._patience + _FIRST_PAUSE).total_seconds())
                continue
            if await self._delivered(number, deliver):
                pause = _FIRST_PAUSE
                continue
            await asyncio.sleep(pause.total_seconds())
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _next(self) -> tuple[int | None, timedelta]:
        """The oldest record, and how long its sender still may deliver it itself."""
        for number, (kept_at, _) in self._kept.items():
            return number, self._patience - (self._clock.monotonic() - kept_at)
        return None, self._patience

    async def _delivered(self, number: int, deliver: Deliver) -> bool:
        try:
            await deliver(self._kept[number][1])
        except MeshError as error:
            if error.retryable:
                return False
            log.error("outbox.refused", file=self._path.name, number=number, error=error.message)
        self.done(number)
        return True

    def _read(self) -> None:
        file = self._opened()
        file.seek(0)
        whole = 0
        while head := file.read(_HEAD.size):
            if len(head) < _HEAD.size:
                break
            kind, number, length, checksum = _HEAD.unpack(head)
            record = file.read(length)
            if len(record) < length or zlib.crc32(record) != checksum:
                break
            whole = file.tell()
            self._last = max(self._last, number)
            if kind == _DONE:
                self._kept.pop(number, None)
            else:
                self._kept[number] = (self._clock.monotonic() - self._patience, record)
        file.truncate(whole if self._kept else 0)

    def _write(self, kind: int, number: int, record: bytes) -> None:
        file = self._opened()
        file.write(_HEAD.pack(kind, number, len(record), zlib.crc32(record)) + record)
        file.flush()
        if self._sync:
            os.fsync(file.fileno())

    def _opened(self) -> BinaryIO:
        if self._file is None:
            raise ValueError("the outbox is not open")
        return self._file
