"""Entries of the ledger as the lines of a file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final

from services.cost.store import CostEvent

# What each column holds, in the order of every kind of file.
COLUMNS: Final[Mapping[str, type]] = {
    "id": str,
    "time": datetime,
    "generation_id": str,
    "attempt": int,
    "outcome": str,
    "provider": str,
    "model": str,
    "tier": str,
    "region": str,
    "team": str,
    "user": str,
    "agent": str,
    "session_id": str,
    "sub_agent": str,
    "turn_id": str,
    "input_tokens": int,
    "cached_input_tokens": int,
    "cache_write_tokens": int,
    "output_tokens": int,
    "reasoning_tokens": int,
    "images": int,
    "audio_input_tokens": int,
    "audio_output_tokens": int,
    "embedding_tokens": int,
    "tokens_estimated": bool,
    "micros_usd": int,
    "price_version": str,
    "price_estimated": bool,
}


class Format(StrEnum):
    """What a file of entries may be."""

    CSV = "csv"
    LINES = "jsonl"
    PARQUET = "parquet"


def as_csv(events: Sequence[CostEvent], *, header: bool) -> bytes:
    """Comma-separated values; the header is there for no entries too."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    if header:
        writer.writerow(COLUMNS)
    writer.writerows([_harmless(value) for value in values(event)] for event in events)
    return text.getvalue().encode()


def _harmless(value: object) -> object:
    """A text that a spreadsheet would take for a formula is shown as a text."""
    if isinstance(value, datetime):
        return value.isoformat()
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def as_lines(events: Sequence[CostEvent]) -> bytes:
    """A JSON object a line."""
    rows = (dict(zip(COLUMNS, values(event), strict=True)) for event in events)
    return "".join(json.dumps(row, default=datetime.isoformat) + "\n" for row in rows).encode()


def values(event: CostEvent) -> tuple[str | int | datetime, ...]:
    """In the order of COLUMNS."""
    call, usage, path = event.call, event.usage, event.call.path
    return (
        event.id,
        event.created_at,
        call.generation_id,
        call.attempt,
        call.outcome.value,
        call.provider,
        call.model,
        call.tier,
        call.region,
        path.team,
        path.user,
        path.agent,
        path.session_id,
        path.sub_agent,
        call.turn_id,
        usage.input_tokens,
        usage.cached_input_tokens,
        usage.cache_write_tokens,
        usage.output_tokens,
        usage.reasoning_tokens,
        usage.images,
        usage.audio_input_tokens,
        usage.audio_output_tokens,
        usage.embedding_tokens,
        usage.estimated,
        event.micros_usd,
        event.price_version,
        event.price_estimated,
    )
