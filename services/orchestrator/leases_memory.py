"""The honest fake of leases: the same fences, takeovers and fairness, in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Final

from services.orchestrator.errors import LeaseLost
from services.orchestrator.store import Lease
from shared.clock import Clock

Place = tuple[str, str]
_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(slots=True)
class _Row:
    """One row of session_lease."""

    waiting_since: int
    owner: str | None = None
    fence: int = 0
    takeovers: int = 0
    expires_at: datetime = _LONG_AGO
    ready: bool = True
    kind: str = "session"


class MemoryLeaseStore:
    """Who drives what. `hear` stands for NOTIFY, `renew` for the thread that renews."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rows: dict[Place, _Row] = {}
        self._turn = count()
        self.hear: list[Callable[[str], None]] = []

    async def claim(self, owner: str, *, ttl: timedelta, limit: int) -> Sequence[Lease]:
        now = self._clock.now()
        return [self._take(place, row, owner, until=now + ttl) for place, row in self._fair(now)[:limit]]

    async def due(self, *, until: timedelta, limit: int) -> Sequence[Place]:
        now = self._clock.now()
        told = self._fair(now)[:limit]
        for _, row in told:
            row.expires_at = now + until
        return [place for place, _ in told]

    async def take(self, tenant: str, session_id: str, owner: str, *, ttl: timedelta) -> Lease | None:
        place = (tenant, session_id)
        row = self._rows[place]
        return self._take(place, row, owner, until=self._clock.now() + ttl) if row.ready else None

    async def tenants(self) -> Sequence[str]:
        """Everybody who ever had a run."""
        return sorted({tenant for tenant, _ in self._rows})

    def _fair(self, now: datetime) -> list[tuple[Place, _Row]]:
        """What is free, tenants in turn, of each what waits longest first."""
        free = [(place, row) for place, row in self._rows.items() if row.ready and row.expires_at < now]
        free.sort(key=lambda found: found[1].waiting_since)
        turn: Counter[str] = Counter()
        fair: list[tuple[int, Place, _Row]] = []
        for place, row in free:
            turn[place[0]] += 1
            fair.append((turn[place[0]], place, row))
        fair.sort(key=lambda found: found[0])
        return [(place, row) for _, place, row in fair]

    async def give_back(self, lease: Lease) -> None:
        row = self._rows[lease.tenant, lease.session_id]
        if row.fence == lease.fence:
            row.owner, row.expires_at = None, _LONG_AGO
            self.notify(lease.session_id)

    def renew(self, owner: str, ttl: timedelta, driven: Sequence[str]) -> None:
        now = self._clock.now()
        for (_, session_id), row in self._rows.items():
            if row.owner == owner and session_id in driven and row.expires_at > now:
                row.expires_at = now + ttl

    def open(self, tenant: str, session_id: str, kind: str) -> None:
        self._rows[tenant, session_id] = _Row(next(self._turn), kind=kind)
        self.notify(session_id)

    def begin(self, tenant: str, session_id: str, kind: str, owner: str, *, ttl: timedelta) -> Lease:
        """As open, taken from its start."""
        row = self._rows[tenant, session_id] = _Row(next(self._turn), kind=kind)
        return self._take((tenant, session_id), row, owner, until=self._clock.now() + ttl)

    def close(self, tenant: str, session_id: str) -> None:
        """Nobody drives it any more."""
        self._rows[tenant, session_id].ready = False

    def check(self, lease: Lease) -> None:
        """Raises LeaseLost."""
        row = self._rows[lease.tenant, lease.session_id]
        held = (row.owner, row.fence) == (lease.owner, lease.fence) and row.expires_at > self._clock.now()
        if not held:
            raise LeaseLost("another replica drives the session", session_id=lease.session_id)

    def release(self, lease: Lease, *, ready: bool) -> None:
        row = self._rows[lease.tenant, lease.session_id]
        row.owner, row.expires_at, row.takeovers, row.ready = None, _LONG_AGO, 0, ready

    def make_ready(self, tenant: str, session_id: str) -> None:
        row = self._rows[tenant, session_id]
        row.ready, row.waiting_since = True, next(self._turn)
        self.notify(session_id)

    def notify(self, session_id: str) -> None:
        for heard in self.hear:
            heard(session_id)

    def _take(self, place: Place, row: _Row, owner: str, *, until: datetime) -> Lease:
        row.takeovers += 1 if row.owner else 0
        row.owner, row.fence, row.expires_at = owner, row.fence + 1, until
        return Lease(*place, owner, row.fence, row.takeovers, row.kind)
