"""The ledger as files: every format has the same rows, and a Parquet file is written while it is read."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from arro3.io import read_parquet

from services.cost import export_parquet
from services.cost.budget import Path
from services.cost.export import COLUMNS, as_csv, as_lines
from services.cost.export_parquet import as_parquet
from services.cost.prices import Usage
from services.cost.store import Call, CostEvent

FIRST = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


def event(number: int) -> CostEvent:
    paid = Call(f"g{number}", "p", "m\u00fcller", Path(team="red", agent="A@1"), turn_id="t")
    usage = Usage(2**31 + number, number, cached_input_tokens=3, estimated=number % 2 == 0)
    at = FIRST + timedelta(seconds=number)
    return CostEvent(f"cev_{number}", paid, usage, 10**12 - 1, "v1", price_estimated=True, created_at=at)


def pages_of(events: Sequence[CostEvent], size: int) -> list[Sequence[CostEvent]]:
    return [events[start : start + size] for start in range(0, len(events), size)]


async def given(pages: Sequence[Sequence[CostEvent]]) -> AsyncIterator[Sequence[CostEvent]]:
    for page in pages:
        yield page


async def read(pages: Sequence[Sequence[CostEvent]]) -> list[dict[str, Any]]:
    data = b"".join([piece async for piece in as_parquet(given(pages))])
    table = read_parquet(io.BytesIO(data)).read_all()
    columns = {name: table[name].to_pylist() for name in table.schema.names}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


async def test_a_parquet_file_has_the_entries_as_they_are() -> None:
    events = [event(number) for number in range(1203)]
    found = await read(pages_of(events, 500))
    lines = [json.loads(line) for line in as_lines(events).splitlines()]
    assert len(found) == 1203
    assert [row | {"time": row["time"].isoformat()} for row in found] == lines


async def test_csv_has_the_same_rows_as_lines() -> None:
    events = [event(1), event(2)]
    rows = list(csv.DictReader(io.StringIO(as_csv(events, header=True).decode())))
    lines = [json.loads(line) for line in as_lines(events).splitlines()]
    assert rows == [{name: str(value) for name, value in line.items()} for line in lines]


async def test_a_parquet_file_of_nothing_has_its_columns() -> None:
    data = b"".join([piece async for piece in as_parquet(given([()]))])
    assert list(read_parquet(io.BytesIO(data)).schema.names) == list(COLUMNS)


async def test_a_parquet_file_leaves_while_its_entries_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_parquet, "_ROWS", 100)
    read_so_far, before_the_last = 0, 0

    async def pages() -> AsyncIterator[Sequence[CostEvent]]:
        nonlocal read_so_far
        for page in pages_of([event(number) for number in range(5000)], 100):
            read_so_far += 1
            yield page

    async for piece in as_parquet(pages()):
        before_the_last += bool(piece) and read_so_far < 50
    assert before_the_last > 10


async def test_a_fault_among_the_entries_ends_the_file_with_it() -> None:
    async def pages() -> AsyncIterator[Sequence[CostEvent]]:
        yield [event(1)]
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        async for _ in as_parquet(pages()):
            pass


async def test_a_value_the_file_cannot_hold_is_an_error_and_nobody_waits() -> None:
    wrong = event(1)
    object.__setattr__(wrong, "micros_usd", 2**70)
    with pytest.raises(Exception, match="too large"):
        await read([[event(2)], [wrong], *([event(3)] for _ in range(20))])
