"""The honest fakes of the bus's stores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from services.gateway.bus.event import Event, Wanted
from services.gateway.bus.store import Delivery, Due, Status, Webhook
from shared.paging import Page

_MOST = 500


class MemoryEventStore:
    """Everything is gone when the process ends."""

    def __init__(self) -> None:
        self._events: dict[str, list[Event]] = {}

    async def append(self, tenant: str, events: Sequence[Event]) -> Sequence[Event]:
        kept = self._events.setdefault(tenant, [])
        known = {event.id: event for event in kept}
        for event in events:
            if event.id not in known:
                known[event.id] = replace(event, sequence=len(kept) + 1)
                kept.append(known[event.id])
        return [known[event.id] for event in events]

    async def read(self, tenant: str, wanted: Wanted, *, after: int, limit: int) -> Sequence[Event]:
        later = self._events.get(tenant, [])[max(after, 0) :]
        return [event for event in later if wanted.fits(event)][:limit]

    async def last_sequence(self, tenant: str) -> int:
        return len(self._events.get(tenant, []))


class MemoryWebhookStore:
    """Everything is gone when the process ends."""

    def __init__(self) -> None:
        self._webhooks: dict[tuple[str, str], Webhook] = {}
        self._deliveries: dict[tuple[str, str], Delivery] = {}
        self._due: dict[tuple[str, str], datetime] = {}

    async def put(self, tenant: str, webhook: Webhook) -> Webhook:
        known = self._webhooks.get((tenant, webhook.id), webhook)
        kept = replace(webhook, created_at=known.created_at, sealed_secret=known.sealed_secret)
        self._webhooks[tenant, webhook.id] = kept
        return kept

    async def find(self, tenant: str, webhook_id: str) -> Webhook | None:
        return self._webhooks.get((tenant, webhook_id))

    async def every(self, tenant: str) -> Sequence[Webhook]:
        return [webhook for (owner, _), webhook in sorted(self._webhooks.items()) if owner == tenant][:_MOST]

    async def delete(self, tenant: str, webhook_id: str) -> bool:
        for place, delivery in list(self._deliveries.items()):
            if place[0] == tenant and delivery.webhook_id == webhook_id:
                del self._deliveries[place]
                self._due.pop(place, None)
        return self._webhooks.pop((tenant, webhook_id), None) is not None

    async def add(self, tenant: str, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            if (tenant, delivery.id) not in self._deliveries:
                self._keep(tenant, delivery)

    async def claim(self, now: datetime, *, until: datetime, limit: int, busy: Sequence[str]) -> Sequence[Due]:
        waiting = sorted((due, place) for place, due in self._due.items() if due <= now)
        found = [Due(*place, self._deliveries[place].webhook_id) for _, place in waiting]
        taken = [due for due in found if due.webhook_id not in busy][:limit]
        for due in taken:
            self._due[due.tenant, due.delivery_id] = until
        return taken

    async def delivery(self, tenant: str, delivery_id: str) -> Delivery | None:
        return self._deliveries.get((tenant, delivery_id))

    async def record(self, tenant: str, delivery: Delivery) -> None:
        if (tenant, delivery.id) in self._deliveries:
            self._keep(tenant, delivery)

    async def deliveries(
        self, tenant: str, webhook_id: str, *, status: Status | None, page: Page
    ) -> Sequence[Delivery]:
        found = [
            delivery
            for (owner, _), delivery in self._deliveries.items()
            if owner == tenant and delivery.webhook_id == webhook_id and status in {None, delivery.status}
        ]
        found.sort(key=_place, reverse=True)
        at, last = page.place
        return [delivery for delivery in found if at is None or _place(delivery) < (at, last)][: page.size + 1]

    def _keep(self, tenant: str, delivery: Delivery) -> None:
        self._deliveries[tenant, delivery.id] = delivery
        self._due.pop((tenant, delivery.id), None)
        if delivery.next_attempt_at:
            self._due[tenant, delivery.id] = delivery.next_attempt_at


def _place(delivery: Delivery) -> tuple[datetime, str]:
    return delivery.created_at, delivery.id
