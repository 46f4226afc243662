"""Evidence for an auditor: acts by criterion of SOC 2, and whether the trail they stand in is whole."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from services.policy.audit import AuditFilter, AuditLog
from services.policy.audit_entry import AuditEntry
from services.policy.store import PolicyStore, ViolationFilter
from shared.paging import Page

SAMPLES: Final = 20
_BATCH: Final = 1000
_CRITERIA: Final = (
    ("CC6.1", "Logical access is restricted", ("access.",)),
    ("CC6.3", "Rights are granted and changed by role", ("access.set_tool", "override.")),
    ("CC6.7", "Data that leaves is restricted", ("privacy.", "export.", "compliance.")),
    ("CC7.2", "Anomalies are watched for", ("enforcement.",)),
    ("CC7.3", "Security events are evaluated", ("enforcement.", "risk.", "decision.")),
    ("CC8.1", "Changes are authorised and recorded", ("bundle.", "enforcement.set_rule")),
)


@dataclass(frozen=True, slots=True)
class Control:
    criterion: str
    title: str
    acts: dict[str, int]
    samples: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    controls: tuple[Control, ...]
    trail_entries: int
    trail_whole: bool
    violations: dict[str, int]
    digest: str


async def evidence(
    tenant: str, by: str, *, audit: AuditLog, store: PolicyStore, start: datetime, end: datetime
) -> Evidence:
    """All there is for a time. Its digest goes into the trail, so that a copy can be told from a forgery."""
    entries = await _entries(tenant, audit, start, end)
    controls = tuple(_control(name, title, marks, entries) for name, title, marks in _CRITERIA)
    integrity = await audit.verify(tenant)
    violations = await _violations(tenant, store, start, end)
    data = [[one.criterion, one.acts, one.samples] for one in controls] + [violations, integrity.entries]
    digest = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
    await audit.record(tenant, by, "compliance.export", digest, entries=len(entries))
    return Evidence(controls, integrity.entries, integrity.broken_at == 0, violations, digest)


def _control(criterion: str, title: str, marks: tuple[str, ...], entries: list[AuditEntry]) -> Control:
    bearing = [one for one in entries if one.act.startswith(marks)]
    acts = Counter(one.act for one in bearing)
    return Control(criterion, title, dict(sorted(acts.items())), tuple(one.sequence for one in bearing[:SAMPLES]))


async def _entries(tenant: str, audit: AuditLog, start: datetime, end: datetime) -> list[AuditEntry]:
    found: list[AuditEntry] = []
    chosen = AuditFilter(start=start, end=end, archived=True)
    while batch := await audit.entries(tenant, chosen, after=found[-1].sequence if found else 0, limit=_BATCH):
        found += batch
    return found


async def _violations(tenant: str, store: PolicyStore, start: datetime, end: datetime) -> dict[str, int]:
    counts: Counter[str] = Counter()
    chosen, page = ViolationFilter(start=start, end=end), Page(size=_BATCH)
    while True:
        batch = await store.violations(tenant, chosen, newest_first=False, page=page)
        counts.update(one.severity.value for one in batch[: page.size])
        if len(batch) <= page.size:
            return dict(sorted(counts.items()))
        last = batch[page.size - 1]
        page = Page(size=_BATCH, cursor=(last.created_at.isoformat(), last.id))
