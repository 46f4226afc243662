"""Where old entries of the audit trail lie: parts of it, compressed, in a folder or in S3 or what speaks like it."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

from services.policy.audit_entry import AuditEntry
from shared.errors import Unavailable
from shared.objects import Objects


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of one tenant's trail that lies elsewhere. `digest` is the SHA-256 of the object, in hex."""

    first: int
    last: int
    name: str
    digest: str


def packed(tenant: str, entries: Sequence[AuditEntry]) -> tuple[Part, bytes]:
    """A part of the archive, and its bytes."""
    data = zipped(map(_line, entries))
    first, last = entries[0].sequence, entries[-1].sequence
    name = f"audit/{quote(tenant, safe='')}/{first:012d}-{last:012d}.jsonl.gz"
    return Part(first, last, name, hashlib.sha256(data).hexdigest()), data


def zipped(rows: Iterable[Mapping[str, object]]) -> bytes:
    """One line of JSON a row; the same rows make the same bytes."""
    lines = (json.dumps(row, sort_keys=True, separators=(",", ":")) for row in rows)
    return gzip.compress("\n".join(lines).encode(), mtime=0)


async def unpacked(objects: Objects, part: Part) -> list[AuditEntry]:
    """The part's entries. Raises Unavailable when the object is gone or is not what was written."""
    data = await objects.get(part.name)
    if data is None or hashlib.sha256(data).hexdigest() != part.digest:
        problem = "is gone" if data is None else "is not what was written"
        raise Unavailable(f"the archived part {part.name} {problem}", dependency="archive")
    return [_entry(json.loads(line)) for line in gzip.decompress(data).decode().split("\n")]


def _line(entry: AuditEntry) -> dict[str, object]:
    return {
        "sequence": entry.sequence,
        "actor": entry.actor,
        "act": entry.act,
        "subject": entry.subject,
        "detail": dict(entry.detail),
        "created_at": entry.created_at.isoformat(),
        "seal": entry.seal,
    }


def _entry(line: dict[str, Any]) -> AuditEntry:
    return AuditEntry(**{**line, "created_at": datetime.fromisoformat(line["created_at"])})
