"""Webhooks: made, changed, tried, and what became of their deliveries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from services.gateway.bus.event import Event
from services.gateway.bus.sending import Outcome, Sender, require_address
from services.gateway.bus.signing import Seal, new_secret
from services.gateway.bus.store import Delivery, Status, Webhook, WebhookStore
from services.gateway.errors import DeliveryNotFound, WebhookNotFound
from shared.clock import Clock
from shared.errors import FieldTooLong
from shared.ids import Ids
from shared.paging import Page

MOST: Final = 500
TEST: Final = "webhook.test"


class Webhooks:
    """The webhooks of all tenants, one tenant a call. With `private`, addresses of private networks may be told."""

    def __init__(
        self, store: WebhookStore, sender: Sender, seal: Seal, *, clock: Clock, ids: Ids, private: bool
    ) -> None:
        self._store = store
        self._sender = sender
        self._seal = seal
        self._clock = clock
        self._ids = ids
        self._private = private

    async def make(self, tenant: str, draft: Webhook) -> tuple[Webhook, str]:
        """A webhook and its secret. Raises InvalidArgument and FieldTooLong."""
        require_address(draft.url, private=self._private)
        if (count := len(await self._store.every(tenant))) >= MOST:
            raise FieldTooLong("webhooks", length=count + 1, limit=MOST, unit="webhooks")
        secret, webhook_id = new_secret(), self._ids.new("whk")
        made = replace(
            draft,
            id=webhook_id,
            enabled=True,
            created_at=self._clock.now(),
            sealed_secret=self._seal.close(secret, webhook_id),
        )
        return await self._store.put(tenant, made), secret

    async def update(self, tenant: str, draft: Webhook) -> Webhook:
        """Raises WebhookNotFound and InvalidArgument."""
        await self.find(tenant, draft.id)
        require_address(draft.url, private=self._private)
        return await self._store.put(tenant, draft)

    async def find(self, tenant: str, webhook_id: str) -> Webhook:
        """Raises WebhookNotFound."""
        if found := await self._store.find(tenant, webhook_id):
            return found
        raise WebhookNotFound(f"no webhook {webhook_id}", webhook_id=webhook_id)

    async def every(self, tenant: str) -> Sequence[Webhook]:
        return await self._store.every(tenant)

    async def delete(self, tenant: str, webhook_id: str) -> None:
        """Raises WebhookNotFound."""
        if not await self._store.delete(tenant, webhook_id):
            raise WebhookNotFound(f"no webhook {webhook_id}", webhook_id=webhook_id)

    async def test(self, tenant: str, webhook_id: str) -> Outcome:
        """One try with an event of its own. Raises WebhookNotFound."""
        webhook, now = await self.find(tenant, webhook_id), self._clock.now()
        event = Event(self._ids.new("evt"), TEST, now, "gateway", subject=webhook_id, data={"message": "It works."})
        return await self._sender.send(tenant, webhook, event, self._ids.new("dlv"), now)

    async def deliveries(
        self, tenant: str, webhook_id: str, *, status: Status | None, page: Page
    ) -> Sequence[Delivery]:
        """Raises WebhookNotFound."""
        await self.find(tenant, webhook_id)
        return await self._store.deliveries(tenant, webhook_id, status=status, page=page)

    async def replay(self, tenant: str, webhook_id: str, delivery_id: str) -> Delivery:
        """Raises WebhookNotFound and DeliveryNotFound."""
        await self.find(tenant, webhook_id)
        found = await self._store.delivery(tenant, delivery_id)
        if found is None or found.webhook_id != webhook_id:
            raise DeliveryNotFound(f"no delivery {delivery_id}", delivery_id=delivery_id)
        again = replace(found, status=Status.PENDING, attempts=0, next_attempt_at=self._clock.now())
        await self._store.record(tenant, again)
        return again
