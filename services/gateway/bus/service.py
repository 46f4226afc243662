"""Gateway's services of the bus."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from agentnet.gateway.v1 import (
    event_service_pb2,
    event_service_pb2_grpc,
    webhook_service_pb2,
    webhook_service_pb2_grpc,
)
from services.gateway.audit import Audit
from services.gateway.bus import convert as to
from services.gateway.bus.bus import Bus
from services.gateway.bus.webhooks import Webhooks
from shared import fields
from shared.clock import Clock
from shared.identity import current
from shared.paging import paged


class EventService(event_service_pb2_grpc.EventServiceServicer):
    """Events."""

    def __init__(self, bus: Bus, clock: Clock) -> None:
        self._bus = bus
        self._clock = clock

    async def PublishEvents(
        self, request: event_service_pb2.PublishEventsRequest, context: Any
    ) -> event_service_pb2.PublishEventsResponse:
        events = to.events(request, source=f"user:{current().subject}", now=self._clock.now())
        kept = await self._bus.publish(current().tenant_id, events)
        return event_service_pb2.PublishEventsResponse(events=[to.event_message(event) for event in kept])

    async def ListEvents(
        self, request: event_service_pb2.ListEventsRequest, context: Any
    ) -> event_service_pb2.ListEventsResponse:
        wanted, after, size, scope = to.event_page(request)
        found = await self._bus.read(current().tenant_id, wanted, after=after, limit=size + 1)
        return to.events_response(found, size, scope)

    async def Subscribe(
        self, request: event_service_pb2.SubscribeRequest, context: Any
    ) -> AsyncIterator[event_service_pb2.SubscribeResponse]:
        wanted, after = to.wanted(request), to.subscription(request)
        async with aclosing(self._bus.subscribe(current().tenant_id, wanted, after=after)) as heard:
            async for found in heard:
                yield to.heard(found)


class WebhookService(webhook_service_pb2_grpc.WebhookServiceServicer):
    """Webhooks."""

    def __init__(self, webhooks: Webhooks, audit: Audit, clock: Clock) -> None:
        self._webhooks = webhooks
        self._audit = audit
        self._clock = clock

    async def CreateWebhook(
        self, request: webhook_service_pb2.CreateWebhookRequest, context: Any
    ) -> webhook_service_pb2.CreateWebhookResponse:
        made, secret = await self._webhooks.make(current().tenant_id, to.webhook(request.webhook, self._clock.now()))
        await self._audit.act(current(), "webhook.created", made.id)
        return webhook_service_pb2.CreateWebhookResponse(webhook=to.webhook_message(made), secret=secret)

    async def GetWebhook(
        self, request: webhook_service_pb2.GetWebhookRequest, context: Any
    ) -> webhook_service_pb2.GetWebhookResponse:
        found = await self._webhooks.find(current().tenant_id, _id(request.webhook_id))
        return webhook_service_pb2.GetWebhookResponse(webhook=to.webhook_message(found))

    async def ListWebhooks(
        self, request: webhook_service_pb2.ListWebhooksRequest, context: Any
    ) -> webhook_service_pb2.ListWebhooksResponse:
        found = await self._webhooks.every(current().tenant_id)
        shown, token = paged(found, request, scope="webhooks", name=lambda webhook: webhook.id)
        return webhook_service_pb2.ListWebhooksResponse(
            webhooks=[to.webhook_message(one) for one in shown], next_page_token=token
        )

    async def UpdateWebhook(
        self, request: webhook_service_pb2.UpdateWebhookRequest, context: Any
    ) -> webhook_service_pb2.UpdateWebhookResponse:
        draft = to.webhook(request.webhook, self._clock.now())
        found = await self._webhooks.update(current().tenant_id, draft)
        await self._audit.act(current(), "webhook.updated", found.id)
        return webhook_service_pb2.UpdateWebhookResponse(webhook=to.webhook_message(found))

    async def DeleteWebhook(
        self, request: webhook_service_pb2.DeleteWebhookRequest, context: Any
    ) -> webhook_service_pb2.DeleteWebhookResponse:
        await self._webhooks.delete(current().tenant_id, _id(request.webhook_id))
        await self._audit.act(current(), "webhook.deleted", request.webhook_id)
        return webhook_service_pb2.DeleteWebhookResponse()

    async def TestWebhook(
        self, request: webhook_service_pb2.TestWebhookRequest, context: Any
    ) -> webhook_service_pb2.TestWebhookResponse:
        outcome = await self._webhooks.test(current().tenant_id, _id(request.webhook_id))
        return webhook_service_pb2.TestWebhookResponse(delivered=outcome.taken, code=outcome.code, error=outcome.error)

    async def ListDeliveries(
        self, request: webhook_service_pb2.ListDeliveriesRequest, context: Any
    ) -> webhook_service_pb2.ListDeliveriesResponse:
        status, page, scope = to.delivery_page(request)
        tenant, webhook_id = current().tenant_id, _id(request.webhook_id)
        found = await self._webhooks.deliveries(tenant, webhook_id, status=status, page=page)
        return to.deliveries_response(found, page, scope)

    async def ReplayDelivery(
        self, request: webhook_service_pb2.ReplayDeliveryRequest, context: Any
    ) -> webhook_service_pb2.ReplayDeliveryResponse:
        delivery_id = fields.identifier(request.delivery_id, "delivery_id")
        found = await self._webhooks.replay(current().tenant_id, _id(request.webhook_id), delivery_id)
        await self._audit.act(current(), "delivery.replayed", delivery_id)
        return webhook_service_pb2.ReplayDeliveryResponse(delivery=to.delivery_message(found))


def _id(value: str) -> str:
    return fields.identifier(value, "webhook_id")
