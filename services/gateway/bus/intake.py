"""What services publish, whichever way it came: read, given its tenant, and put into the bus."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from services.gateway.bus.bus import Bus
from services.gateway.bus.event import NAME, Event
from shared.bus import MESH
from shared.log import log


@dataclass(frozen=True, slots=True)
class Published:
    """An entry as `shared.bus.Emitter` made it. The event is JSON; one without an id gets the default."""

    default_id: str
    tenant: str
    event: str


async def take(bus: Bus, platform: str, entries: Sequence[Published]) -> None:
    """Publishes a batch, tenant by tenant; an entry that cannot be read is logged and dropped."""
    by_tenant: dict[str, list[Event]] = {}
    for entry in entries:
        event = _read(entry)
        if event is None:
            log.error("bus.entry_dropped", entry=entry.default_id)
            continue
        by_tenant.setdefault(platform if entry.tenant == MESH else entry.tenant, []).append(event)
    for tenant, events in by_tenant.items():
        await bus.publish(tenant, events)


def _read(entry: Published) -> Event | None:
    try:
        said = json.loads(entry.event)
        event = Event(
            id=str(said.get("id") or entry.default_id),
            name=str(said["name"]),
            occurred_at=datetime.fromisoformat(said["time"]).astimezone(UTC),
            source=str(said["source"]),
            subject=str(said.get("subject", "")),
            session_id=str(said.get("session_id", "")),
            agent=str(said.get("agent", "")),
            data=dict(said.get("data", {})),
        )
    except (KeyError, ValueError, TypeError):
        return None
    return event if NAME.fullmatch(event.name) else None
