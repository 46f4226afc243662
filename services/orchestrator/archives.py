"""Logs of sessions that ended long ago: moved as JSON from the database to the object store, and read from there."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Protocol
from urllib.parse import quote

from services.orchestrator.store import Entry, Sealed, SessionStore
from shared.clock import Clock
from shared.errors import MeshError, Unavailable
from shared.log import log
from shared.objects import Objects
from shared.telemetry import meter

_VERSION: Final = 1
_AT_ONCE: Final = 100
# Readers page through a log; it is fetched once for all its pages.
_KEPT: Final = 8
_archived = meter.create_counter("sessions_archived", description="logs moved to the object store")


class Tenants(Protocol):
    """Who has sessions."""

    async def tenants(self) -> Sequence[str]:
        """All of them."""


class Archive:
    """The logs in the object store, byte for byte as they were written, each event with the hash that seals it."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._read: OrderedDict[str, Sequence[Sealed]] = OrderedDict()

    async def put(self, tenant: str, session_id: str, sealed: Sequence[Sealed]) -> None:
        """Raises Unavailable."""
        document = {"version": _VERSION, "session_id": session_id, "events": [_written(one) for one in sealed]}
        await self._objects.put(_name(tenant, session_id), json.dumps(document).encode())

    async def log(self, tenant: str, session_id: str) -> Sequence[Sealed]:
        """Raises Unavailable, also when the object store has it no more."""
        name = _name(tenant, session_id)
        if name not in self._read:
            data = await self._objects.get(name)
            if data is None:
                raise Unavailable("the log is not in the archive", dependency="objects", session_id=session_id)
            self._read[name] = [_read(one) for one in json.loads(data)["events"]]
        self._read.move_to_end(name)
        while len(self._read) > _KEPT:
            self._read.popitem(last=False)
        return self._read[name]

    async def read(self, tenant: str, session_id: str, after: int, *, limit: int) -> Sequence[Entry]:
        """As SessionStore.read. Raises Unavailable."""
        following = (await self.log(tenant, session_id))[after : after + limit]
        return [Entry(one.sequence, one.kind, one.payload) for one in following]


@dataclass(frozen=True, slots=True)
class Archivist:
    """Moves logs of runs that ended longer ago than `hot`. Many may be at work: what is done twice is the same."""

    store: SessionStore
    archive: Archive
    tenants: Tenants
    clock: Clock
    hot: timedelta
    every: timedelta

    async def run(self) -> None:
        """For as long as the service runs."""
        while True:
            try:
                moved = await self.move()
                if moved:
                    log.info("sessions.archived", sessions=moved)
            except MeshError as error:
                log.warning("sessions.not_archived", reason=error.reason_name)
            await asyncio.sleep(self.every.total_seconds())

    async def move(self) -> int:
        """Moves all that is due; how many those were. Raises Unavailable."""
        return sum([await self._move(tenant) for tenant in await self.tenants.tenants()])

    async def _move(self, tenant: str) -> int:
        moved, before = 0, self.clock.now() - self.hot
        while due := await self.store.archivable(tenant, before=before, limit=_AT_ONCE):
            for session_id in due:
                await self.archive.put(tenant, session_id, await self.store.sealed(tenant, session_id))
                await self.store.let_go(tenant, session_id)
            moved += len(due)
            _archived.add(len(due))
        return moved


def _name(tenant: str, session_id: str) -> str:
    return f"sessions/{quote(tenant, safe='')}/{session_id}.json"


def _written(one: Sealed) -> dict[str, Any]:
    payload, mac = (base64.b64encode(part).decode() for part in (one.payload, one.mac))
    return {"sequence": one.sequence, "kind": one.kind, "payload": payload, "mac": mac}


def _read(one: dict[str, Any]) -> Sealed:
    return Sealed(one["sequence"], one["kind"], base64.b64decode(one["payload"]), base64.b64decode(one["mac"]))
