"""The honest fake: the ledger in dictionaries, with the same answers as Postgres."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

from services.cost.store import Budget, CostEvent, Filter, Lease, Summary
from shared.paging import Page


class MemoryCostStore:
    """Everything is gone when the process ends."""

    def __init__(self) -> None:
        self._leases: dict[tuple[str, str], Lease] = {}
        self._events: dict[tuple[str, str], CostEvent] = {}
        self._budgets: dict[str, tuple[str, int, datetime]] = {}

    async def reserve(self, tenant: str, lease: Lease, *, now: datetime) -> bool:
        if tenant in self._budgets:
            _, limit, _ = self._budgets[tenant]
            others = self._leased(tenant, now, but=lease.generation_id)
            if self._settled(tenant) + others + lease.micros_usd > limit:
                return False
        self._leases[tenant, lease.generation_id] = lease
        return True

    async def lease(self, tenant: str, generation_id: str) -> Lease | None:
        return self._leases.get((tenant, generation_id))

    async def settle(self, tenant: str, event: CostEvent) -> CostEvent:
        self._leases.pop((tenant, event.generation_id), None)
        return self._events.setdefault((tenant, event.generation_id), event)

    async def summarize(self, tenant: str, chosen: Filter, *, group_by: Sequence[str], page: Page) -> Sequence[Summary]:
        groups: dict[tuple[str, ...], list[CostEvent]] = defaultdict(list)
        for event in self._chosen(tenant, chosen):
            groups[tuple(_column(event, name) for name in group_by)].append(event)
        sums = [
            Summary(
                group=group,
                micros_usd=sum(event.micros_usd for event in events),
                input_tokens=sum(event.usage.input_tokens for event in events),
                output_tokens=sum(event.usage.output_tokens for event in events),
                generations=len(events),
            )
            for group, events in groups.items()
        ]
        skip = int(page.cursor[0]) if page.cursor else 0
        return sorted(sums, key=lambda found: (-found.micros_usd, found.group))[skip : skip + page.size + 1]

    async def events(self, tenant: str, chosen: Filter, *, newest_first: bool, page: Page) -> Sequence[CostEvent]:
        found = sorted(self._chosen(tenant, chosen), key=_place, reverse=newest_first)
        if page.cursor:
            seen = (page.cursor[0], page.cursor[1])
            found = [event for event in found if (_place(event) < seen if newest_first else _place(event) > seen)]
        return found[: page.size + 1]

    async def budget(self, tenant: str, *, now: datetime) -> Budget | None:
        if tenant not in self._budgets:
            return None
        budget_id, limit, updated_at = self._budgets[tenant]
        leased = self._leased(tenant, now)
        return Budget(budget_id, limit, self._settled(tenant), leased, updated_at)

    async def set_budget(self, tenant: str, budget_id: str, limit: int, *, now: datetime) -> Budget:
        known = self._budgets.get(tenant)
        self._budgets[tenant] = (known[0] if known else budget_id, limit, now)
        found = await self.budget(tenant, now=now)
        assert found is not None  # noqa: S101 - set the line before
        return found

    def _settled(self, tenant: str) -> int:
        return sum(event.micros_usd for (owner, _), event in self._events.items() if owner == tenant)

    def _leased(self, tenant: str, now: datetime, *, but: str = "") -> int:
        mine = (lease for (owner, _), lease in self._leases.items() if owner == tenant)
        return sum(lease.micros_usd for lease in mine if lease.expires_at > now and lease.generation_id != but)

    def _chosen(self, tenant: str, chosen: Filter) -> list[CostEvent]:
        return [
            event
            for (owner, _), event in self._events.items()
            if owner == tenant
            and (chosen.start is None or event.created_at >= chosen.start)
            and (chosen.end is None or event.created_at < chosen.end)
            and chosen.session_id in ("", event.session_id)
            and chosen.model in ("", event.model)
        ]


def _place(event: CostEvent) -> tuple[str, str]:
    return event.created_at.isoformat(), event.id


def _column(event: CostEvent, name: str) -> str:
    match name:
        case "day":
            return event.created_at.date().isoformat()
        case "session":
            return event.session_id
        case _:
            return str(getattr(event, name))
