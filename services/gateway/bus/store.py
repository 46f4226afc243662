"""What the bus asks of storage: events, webhooks, deliveries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from services.gateway.bus.event import Event, Wanted
from shared.paging import Page


class Format(StrEnum):
    """What the body of a delivery looks like."""

    CLOUDEVENTS = "cloudevents"
    SLACK = "slack"
    CRM = "crm"
    ERROR_TRACKING = "error_tracking"


class Status(StrEnum):
    """Where a delivery is."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Webhook:
    """One subscription. Its secret is sealed and opened only to sign."""

    id: str
    url: str
    display_name: str
    event_names: tuple[str, ...]
    format: Format
    sealed_secret: bytes
    enabled: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event for one webhook."""

    id: str
    webhook_id: str
    event_sequence: int
    event_name: str
    status: Status
    created_at: datetime
    attempts: int = 0
    last_code: int = 0
    last_error: str = ""
    next_attempt_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Due:
    """A delivery that a worker has claimed."""

    tenant: str
    delivery_id: str
    webhook_id: str


class EventStore(Protocol):
    """Where events are kept."""

    async def append(self, tenant: str, events: Sequence[Event]) -> Sequence[Event]:
        """Keeps events in order and numbers them; one whose id is known is not kept again and comes back as it was."""

    async def read(self, tenant: str, wanted: Wanted, *, after: int, limit: int) -> Sequence[Event]:
        """Events after a sequence, in order."""

    async def last_sequence(self, tenant: str) -> int:
        """0 when there is none."""


class WebhookStore(Protocol):
    """Where webhooks and deliveries are kept."""

    async def put(self, tenant: str, webhook: Webhook) -> Webhook:
        """Makes or replaces; the first secret and time stay."""

    async def find(self, tenant: str, webhook_id: str) -> Webhook | None: ...

    async def every(self, tenant: str) -> Sequence[Webhook]:
        """By id, at most 500."""

    async def delete(self, tenant: str, webhook_id: str) -> bool:
        """False when there was none."""

    async def add(self, tenant: str, deliveries: Sequence[Delivery]) -> None:
        """Pending ones, due at their next attempt. One that is there already is left as it is."""

    async def claim(self, now: datetime, *, until: datetime, limit: int, busy: Sequence[str]) -> Sequence[Due]:
        """Deliveries of all tenants that are due, the longest due first; nobody else gets them until a time. Webhooks
        in `busy` are passed over.
        """

    async def delivery(self, tenant: str, delivery_id: str) -> Delivery | None: ...

    async def record(self, tenant: str, delivery: Delivery) -> None:
        """Writes how a try went; what is pending is due again at its next attempt, all else leaves the queue."""

    async def deliveries(
        self, tenant: str, webhook_id: str, *, status: Status | None, page: Page
    ) -> Sequence[Delivery]:
        """Newest first, at most `page.size` + 1. The cursor is (time, id) of the last one seen."""
