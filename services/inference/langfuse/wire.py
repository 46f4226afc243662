"""Langfuse's ingestion format (github.com/langfuse/langfuse, fern/apis/server/definition/ingestion.yml). Pure."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from services.inference.langfuse.contract import ExportedGeneration, Link, Spent

MAX_BATCH_BYTES: Final = 3_000_000  # Langfuse takes 3.5 MB
_MAX_TEXT: Final = 400_000  # characters of input and of output; at most three bytes each, twice, fit a batch
_IDS: Final = uuid.UUID("6f6f2a52-3a0e-4f0e-9a3c-0b8d6f1f5a77")  # any namespace, the same for ever
_TOO_MANY: Final = 429
_SERVER: Final = 500


@dataclass(frozen=True, slots=True)
class Event:
    """One event as it is sent, and the id the answer names it by."""

    id: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an answer says: events to send again, and those refused for good with their status."""

    again: tuple[Event, ...] = ()
    refused: tuple[tuple[str, int], ...] = ()


def events(one: ExportedGeneration, *, link: Link | None, content: bool, environment: str) -> tuple[Event, Event]:
    """A trace and its generation; without `content` no text leaves the mesh.

    Sent twice they are the same two events: their ids are made from the generation's.
    """
    stamp = _instant(one.ended_at)
    trace = _event("trace-create", one, stamp, _trace(one, environment=environment))
    generation = _event(
        "generation-create", one, stamp, _generation(one, link, content=content, environment=environment)
    )
    return trace, generation


def batches(waiting: Sequence[Event]) -> Iterator[list[Event]]:
    """The events in order, in as few batches as their size allows."""
    batch: list[Event] = []
    size = 0
    for event in waiting:
        if batch and size + len(event.data) > MAX_BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(event)
        size += len(event.data) + 1
    if batch:
        yield batch


def body(batch: Sequence[Event]) -> bytes:
    return b'{"batch":[' + b",".join(event.data for event in batch) + b"]}"


def read(batch: Sequence[Event], answer: bytes) -> Verdict:
    """The partial errors of a 207. Raises ValueError when the answer is not Langfuse's."""
    try:
        errors = {str(error["id"]): int(error["status"]) for error in json.loads(answer)["errors"]}
    except (TypeError, KeyError) as error:
        raise ValueError("no list of errors") from error
    again = tuple(event for event in batch if _passing(errors.get(event.id, 0)))
    refused = tuple((event.id, errors[event.id]) for event in batch if event.id in errors and event not in again)
    return Verdict(again, refused)


def _passing(status: int) -> bool:
    return status == _TOO_MANY or status >= _SERVER


def _event(kind: str, one: ExportedGeneration, stamp: str, said: dict[str, Any]) -> Event:
    event_id = str(uuid.uuid5(_IDS, f"{kind}/{one.tenant_id}/{one.id}"))
    whole = {"id": event_id, "type": kind, "timestamp": stamp, "body": said}
    return Event(event_id, json.dumps(whole, ensure_ascii=False).encode())


def _trace(one: ExportedGeneration, *, environment: str) -> dict[str, Any]:
    session = {"sessionId": one.session_id} if one.session_id else {}
    return {
        "id": _trace_id(one),
        "timestamp": _instant(one.started_at),
        "name": one.agent or "generation",
        "userId": one.tenant_id,
        "environment": environment,
        "metadata": {"tenant_id": one.tenant_id, "generation_id": one.id},
        **session,
    }


def _generation(one: ExportedGeneration, link: Link | None, *, content: bool, environment: str) -> dict[str, Any]:
    said: dict[str, Any] = {
        "id": str(uuid.uuid5(_IDS, f"generation/{one.tenant_id}/{one.id}")),
        "traceId": _trace_id(one),
        "name": one.agent or "generation",
        "startTime": _instant(one.started_at),
        "endTime": _instant(one.ended_at),
        "model": one.model,
        "modelParameters": dict(one.parameters),
        "usageDetails": _usage(one.spent),
        "costDetails": {"total": one.spent.micros_usd / 1_000_000},
        "level": "ERROR" if one.failed else "DEFAULT",
        "environment": environment,
        "metadata": _metadata(one),
    }
    if one.failed:
        said["statusMessage"] = one.outcome
    if one.first_token_at:
        said["completionStartTime"] = _instant(one.first_token_at)
    if link:
        said |= {"promptName": link.name, "promptVersion": link.version}
    return said | (_content(one) if content else {})


def _content(one: ExportedGeneration) -> dict[str, Any]:
    """The texts, the longest beginning of them that fits a batch."""
    left, messages = _MAX_TEXT, []
    for message in one.messages:
        named = {"name": message.name} if message.name else {}
        messages.append({"role": message.role, "content": message.text[:left], **named})
        left = max(0, left - len(message.text))
    return {"input": messages, "output": one.output[:_MAX_TEXT]}


def _metadata(one: ExportedGeneration) -> dict[str, Any]:
    prompt = one.prompt
    tied = (
        {"prompt": prompt.reference, "prompt_number": prompt.number, "prompt_label": one.prompt_label} if prompt else {}
    )
    return {
        "tenant_id": one.tenant_id,
        "generation_id": one.id,
        "provider": one.provider,
        "outcome": one.outcome,
        "usage_estimated": one.spent.estimated,
        **tied,
    }


def _usage(spent: Spent) -> dict[str, int]:
    parts = {
        "input": spent.input_tokens,
        "input_cached_tokens": spent.cached_input_tokens,
        "output": spent.output_tokens,
        "output_reasoning_tokens": spent.reasoning_tokens,
    }
    return parts | {"total": sum(parts.values())}


def _trace_id(one: ExportedGeneration) -> str:
    return str(uuid.uuid5(_IDS, f"trace/{one.tenant_id}/{one.id}"))


def _instant(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
