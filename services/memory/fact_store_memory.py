"""The honest fake of the fact store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from itertools import count

from services.memory.bounds import Kept
from services.memory.fact_store import Closed, Fact, FactFilter, Recorded
from services.memory.receipts_memory import InMemoryReceipts
from services.memory.store import NEVER, Receipt
from shared.paging import Page


class InMemoryFacts:
    """One list of facts a tenant."""

    def __init__(self, receipts: InMemoryReceipts | None = None) -> None:
        self.receipts = receipts or InMemoryReceipts()
        self._places = count(1)
        self._tenants: dict[str, dict[str, Fact]] = {}

    async def record(self, tenant: str, facts: Sequence[Fact]) -> Sequence[Recorded]:
        mine = self._tenants.setdefault(tenant, {})
        return [self._record(mine, fact) for fact in facts]

    def _record(self, mine: dict[str, Fact], fact: Fact) -> Recorded:
        rivals = [
            one for one in mine.values()
            if (one.subject, one.relation) == (fact.subject, fact.relation) and _holds(one, fact.valid_from)
        ]  # fmt: skip
        for one in rivals:
            if one.object == fact.object:
                return Recorded(one, [])
        ended = [] if fact.several else [_ended(one, fact) for one in rivals]
        later = min((one.valid_from for one in mine.values() if _follows(one, fact)), default=None)
        # A fact told late holds only until the one known to follow it.
        until = fact.valid_to if fact.several or later is None else min(fact.valid_to or later, later)
        kept = replace(fact, valid_to=until, place=next(self._places))
        mine |= {one.id: one for one in (*ended, kept)}
        return Recorded(kept, ended)

    async def find(self, tenant: str, fact_id: str) -> Fact | None:
        return self._tenants.get(tenant, {}).get(fact_id)

    async def every(self, tenant: str, chosen: FactFilter, page: Page) -> Sequence[Fact]:
        mine = sorted(self._tenants.get(tenant, {}).values(), key=lambda fact: -fact.place)
        rest = (_seen(fact, chosen.as_of) for fact in mine if not page.skip or fact.place < page.skip)
        return [fact for fact in rest if _fits(fact, chosen)][: page.size + 1]

    async def touching(self, tenant: str, entities: Sequence[str], *, valid_at: datetime, limit: int) -> Sequence[Fact]:
        found = [
            fact for fact in self._tenants.get(tenant, {}).values()
            if (fact.subject in entities or fact.object in entities) and _holds(fact, valid_at)
        ]  # fmt: skip
        return sorted(found, key=lambda fact: fact.place)[:limit]

    async def end(self, tenant: str, fact_id: str, *, valid_to: datetime, now: datetime) -> Fact | None:
        mine = self._tenants.get(tenant, {})
        fact = mine.get(fact_id)
        if fact and fact.ended_at is None and _holds(fact, max(valid_to, fact.valid_from)):
            mine[fact_id] = _closed(fact, max(valid_to, fact.valid_from), now)
        return mine.get(fact_id)

    async def forget(self, tenant: str, facts: Sequence[Fact], receipts: Sequence[Receipt]) -> int:
        mine = self._tenants.get(tenant, {})
        self.receipts.add(tenant, receipts)
        return sum(mine.pop(fact.id, None) is not None for fact in facts)

    async def kept(self, tenant: str, *, ended_by: datetime | None) -> Kept:
        mine = self._mine(tenant, ended_by)
        return Kept(len(mine), min((fact.recorded_at for fact in mine), default=None))

    async def outlived(self, tenant: str, *, before: datetime, ended_by: datetime | None, limit: int) -> Sequence[Fact]:
        mine = self._mine(tenant, ended_by)
        return [fact for fact in mine if (_last_known(fact) if ended_by else fact.recorded_at) < before][:limit]

    async def surplus(
        self, tenant: str, *, at_most: int, ended_by: datetime | None, now: datetime, limit: int
    ) -> Sequence[Fact]:
        def worth(fact: Fact) -> tuple[bool, datetime, int]:
            over = fact.valid_to is not None and fact.valid_to <= now
            return not over, _last_known(fact) if over else NEVER, fact.place

        mine = sorted(self._mine(tenant, ended_by), key=worth)
        return mine[: max(len(mine) - at_most, 0)][:limit]

    def _mine(self, tenant: str, ended_by: datetime | None) -> list[Fact]:
        mine = sorted(self._tenants.get(tenant, {}).values(), key=lambda fact: fact.place)
        return [fact for fact in mine if ended_by is None or (fact.valid_to and fact.valid_to <= ended_by)]


def _last_known(fact: Fact) -> datetime:
    return max(filter(None, (fact.valid_to, fact.ended_at, fact.recorded_at)))


def _ended(fact: Fact, by: Fact) -> Fact:
    return replace(_closed(fact, by.valid_from, by.recorded_at), superseded_by=by.id)


def _closed(fact: Fact, valid_to: datetime, now: datetime) -> Fact:
    before = Closed(now, fact.valid_to, fact.ended_at, fact.superseded_by)
    return replace(fact, valid_to=valid_to, ended_at=now, earlier=(*fact.earlier, before))


def _seen(fact: Fact, as_of: datetime | None) -> Fact:
    """As the mesh knew it then."""
    before = next((one for one in fact.earlier if as_of and one.until > as_of), None)
    if before is None:
        return fact
    _, valid_to, ended_at, superseded_by = before
    return replace(fact, valid_to=valid_to, ended_at=ended_at, superseded_by=superseded_by)


def _follows(one: Fact, fact: Fact) -> bool:
    return (one.subject, one.relation) == (fact.subject, fact.relation) and one.valid_from > fact.valid_from


def _holds(fact: Fact, at: datetime) -> bool:
    return fact.valid_from <= at and (fact.valid_to is None or fact.valid_to > at)


def _fits(fact: Fact, chosen: FactFilter) -> bool:
    known = chosen.as_of is None or fact.recorded_at <= chosen.as_of
    return (
        known
        and (not chosen.subject or fact.subject == chosen.subject)
        and (not chosen.relation or fact.relation == chosen.relation)
        and (not chosen.object or fact.object == chosen.object)
        and (chosen.valid_at is None or _holds(fact, chosen.valid_at))
    )
