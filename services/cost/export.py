"""Entries of the ledger as the lines of a file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Final

from services.cost.store import CostEvent

COLUMNS: Final = (
    "id",
    "time",
    "generation_id",
    "attempt",
    "outcome",
    "provider",
    "model",
    "tier",
    "region",
    "team",
    "user",
    "agent",
    "session_id",
    "sub_agent",
    "turn_id",
    "input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "images",
    "audio_input_tokens",
    "audio_output_tokens",
    "embedding_tokens",
    "tokens_estimated",
    "micros_usd",
    "price_version",
    "price_estimated",
)


def as_csv(events: Sequence[CostEvent], *, header: bool) -> bytes:
    """Comma-separated values; the header is there for no entries too."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    if header:
        writer.writerow(COLUMNS)
    writer.writerows([_harmless(value) for value in _values(event)] for event in events)
    return text.getvalue().encode()


def _harmless(value: object) -> object:
    """A text that a spreadsheet would take for a formula is shown as a text."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def as_lines(events: Sequence[CostEvent]) -> bytes:
    """A JSON object a line."""
    return "".join(json.dumps(dict(zip(COLUMNS, _values(event), strict=True))) + "\n" for event in events).encode()


def _values(event: CostEvent) -> tuple[str | int, ...]:
    """In the order of COLUMNS."""
    call, usage, path = event.call, event.usage, event.call.path
    return (
        event.id,
        event.created_at.isoformat(),
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
