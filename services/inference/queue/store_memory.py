"""The honest fake: one process, gone with it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from services.inference.queue.store import Claim, Depth, Submitted, Work
from shared.clock import Clock
from shared.identity import Principal
from shared.paging import Page

_KEPT = timedelta(days=1)


@dataclass(slots=True)
class _Entry:
    principal: Principal
    request: bytes
    submitted: Submitted
    ready_at: datetime
    owner: str = ""
    fence: int = 0
    expires_at: datetime | None = None


class MemoryQueueStore:
    """Everything in one table."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entries: dict[tuple[str, str], _Entry] = {}

    async def submit(self, principal: Principal, generation_id: str, request: bytes) -> None:
        now = self._clock.now()
        for key, entry in list(self._entries.items()):
            if key[0] == principal.tenant_id and entry.submitted.ended_at and entry.submitted.ended_at < now - _KEPT:
                del self._entries[key]
        entry = _Entry(principal, request, Submitted(generation_id, now), ready_at=now)
        self._entries.setdefault((principal.tenant_id, generation_id), entry)

    async def find(self, tenant: str, generation_id: str) -> Submitted | None:
        entry = self._entries.get((tenant, generation_id))
        return replace(entry.submitted, running=self._taken(entry)) if entry else None

    async def list(self, tenant: str, page: Page, *, still_open: bool) -> Sequence[Submitted]:
        mine = [
            replace(entry.submitted, running=self._taken(entry), outcome=b"")
            for (owner, _), entry in self._entries.items()
            if owner == tenant and not (still_open and entry.submitted.ended_at)
        ]
        mine.sort(key=lambda one: (one.created_at, one.id), reverse=True)
        at, last = page.place
        return [one for one in mine if at is None or (one.created_at, one.id) < (at, last)][: page.size + 1]

    async def depth(self) -> Depth:
        now, todo = self._clock.now(), [one for one in self._entries.values() if not one.submitted.ended_at]
        waiting = [one.ready_at for one in todo if not self._taken(one)]
        oldest = max((now - ready_at for ready_at in waiting), default=timedelta())
        return Depth(len(waiting), len(todo) - len(waiting), max(oldest, timedelta()))

    async def withdraw(self, tenant: str, generation_id: str, failure: bytes) -> bool:
        entry = self._entries.get((tenant, generation_id))
        if entry is None or self._taken(entry) or entry.submitted.ended_at:
            return False
        self._end(entry, succeeded=False, outcome=failure)
        return True

    async def claim(self, owner: str, *, lease: timedelta, most: int) -> Sequence[Claim]:
        now, places, waiting = self._clock.now(), defaultdict[str, int](int), list[tuple[int, datetime, str, str]]()
        for (tenant, name), entry in sorted(self._entries.items(), key=lambda one: (one[1].ready_at, one[0][1])):
            if not (entry.submitted.ended_at or self._taken(entry) or entry.ready_at > now):
                places[tenant] += 1
                waiting.append((places[tenant], entry.ready_at, tenant, name))
        claims = []
        for _, _, tenant, name in sorted(waiting)[:most]:
            entry = self._entries[tenant, name]
            entry.owner, entry.fence, entry.expires_at = owner, entry.fence + 1, now + lease
            claims.append(Claim(tenant, name, owner, entry.fence))
        return claims

    async def renew(self, owner: str, claims: Sequence[Claim], *, lease: timedelta) -> Sequence[Claim]:
        held = [claim for claim in claims if self._held(claim)]
        for claim in held:
            self._entries[claim.tenant, claim.id].expires_at = self._clock.now() + lease
        return held

    async def begin(self, claim: Claim) -> Work | None:
        entry = self._held(claim)
        if entry is None:
            return None
        entry.submitted = replace(entry.submitted, runs=entry.submitted.runs + 1)
        return Work(replace(entry.principal, expires_at=None), entry.request, entry.submitted.runs)

    async def end(self, claim: Claim, *, succeeded: bool, outcome: bytes) -> bool:
        entry = self._held(claim)
        if entry is None:
            return False
        self._end(entry, succeeded=succeeded, outcome=outcome)
        return True

    async def again(self, claim: Claim, *, after: timedelta) -> None:
        if entry := self._held(claim):
            entry.owner, entry.expires_at, entry.ready_at = "", None, self._clock.now() + after

    def _taken(self, entry: _Entry) -> bool:
        return entry.expires_at is not None and entry.expires_at > self._clock.now()

    def _held(self, claim: Claim) -> _Entry | None:
        entry = self._entries[claim.tenant, claim.id]
        mine = self._taken(entry) and (entry.owner, entry.fence) == (claim.owner, claim.fence)
        return entry if mine and not entry.submitted.ended_at else None

    def _end(self, entry: _Entry, *, succeeded: bool, outcome: bytes) -> None:
        entry.submitted = replace(entry.submitted, succeeded=succeeded, outcome=outcome, ended_at=self._clock.now())
        entry.expires_at = None
