"""Entries of the ledger as a Parquet file, written while they are read: neither they nor the file are held whole."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from io import RawIOBase
from queue import SimpleQueue
from typing import Any, Final

from services.cost.export import COLUMNS, values
from services.cost.store import CostEvent

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_ROWS: Final = 50_000  # of a row group: what a reader skips or reads as a whole, and what waits in memory
_AHEAD: Final = 4  # pages read before they are written
_COMPRESSION: Final = "zstd(3)"

Pages = SimpleQueue[Sequence[CostEvent] | None]


def available() -> bool:
    """Whether the extra `parquet` is installed."""
    return importlib.util.find_spec("arro3") is not None


async def as_parquet(pages: AsyncIterator[Sequence[CostEvent]]) -> AsyncGenerator[bytes, None]:
    """The pages as one file, in pieces. Dates are instants in UTC, money and tokens are 64-bit integers."""
    given: Pages = SimpleQueue()
    room, written = asyncio.Semaphore(_AHEAD), _Written()
    loop = asyncio.get_running_loop()

    def taken() -> Iterator[Sequence[CostEvent]]:
        for page in iter(given.get, None):
            loop.call_soon_threadsafe(room.release)
            yield page

    writing = loop.run_in_executor(None, _write, taken(), written)
    try:
        async for page in pages:
            await room.acquire()
            given.put(page)
            if data := written.take():
                yield data
    finally:
        given.put(None)
        await writing
    yield written.take()


class _Written(RawIOBase):
    """The bytes so far that nobody has taken; written by one thread, taken by another."""

    def __init__(self) -> None:
        self._pieces: SimpleQueue[bytes] = SimpleQueue()

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        piece = bytes(data)
        self._pieces.put(piece)
        return len(piece)

    def take(self) -> bytes:
        return b"".join(self._pieces.get() for _ in range(self._pieces.qsize()))


def _write(pages: Iterator[Sequence[CostEvent]], file: _Written) -> None:
    """In a thread, to the end of the pages also when it fails: whoever brings them waits for their being taken."""
    core, arrow = importlib.import_module("arro3.core"), importlib.import_module("arro3.io")
    try:
        kinds = _kinds(core)
        schema = core.Schema([core.Field(name, kind, nullable=False) for name, (kind, _) in kinds.items()])
        batches = (_batch(core, schema, kinds, page) for page in pages if page)
        reader = core.RecordBatchReader.from_batches(schema, batches)
        arrow.write_parquet(reader, file, compression=_COMPRESSION, max_row_group_size=_ROWS)
    finally:
        for _ in pages:
            pass


def _kinds(core: Any) -> dict[str, tuple[Any, Callable[[list[Any]], Any]]]:
    """How each column is called in the file, and how it is made."""
    instants = core.DataType.timestamp("us", tz="UTC")
    made = {
        str: (core.DataType.utf8(), lambda found: core.Array(found, core.DataType.utf8())),
        int: (core.DataType.int64(), lambda found: core.Array(found, core.DataType.int64())),
        bool: (core.DataType.bool(), lambda found: core.Array(found, core.DataType.bool())),
        datetime: (
            instants,
            lambda found: core.Array([(at - _EPOCH) // _MICROSECOND for at in found], core.DataType.int64()).cast(
                instants
            ),
        ),
    }
    return {name: made[kind] for name, kind in COLUMNS.items()}


def _batch(core: Any, schema: Any, kinds: dict[str, Any], page: Sequence[CostEvent]) -> Any:
    columns = zip(*map(values, page), strict=True)
    arrays = [make(list(column)) for (_, make), column in zip(kinds.values(), columns, strict=True)]
    return core.RecordBatch.from_arrays(arrays, schema=schema)
