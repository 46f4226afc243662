"""The real stores of the bus: the schema `gateway`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from services.gateway.bus.event import Event, Wanted
from services.gateway.bus.store import Delivery, Due, Format, Status, Webhook
from shared.paging import Page
from shared.postgres import Connection, Database, load_queries

_SQL = load_queries(Path(__file__).with_name("queries.sql"))


class PostgresEventStore:
    """One row an event. A tenant's writers wait for one another, so that numbers have no gaps and appear in order."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, tenant: str, events: Sequence[Event]) -> Sequence[Event]:
        async with self._database.tenant(tenant) as connection:
            await connection.fetchval(_SQL["reserve"], tenant, 0)  # from here on this tenant's other writers wait
            rows = await connection.fetch(_SQL["known"], [event.id for event in events])
            known = {row["id"]: _event(row) for row in rows}
            new = list({event.id: event for event in events if event.id not in known}.values())
            last = await connection.fetchval(_SQL["reserve"], tenant, len(new))
            numbered = [replace(event, sequence=last - len(new) + 1 + place) for place, event in enumerate(new)]
            await connection.executemany(_SQL["append"], [(tenant, *_columns(event)) for event in numbered])
        known |= {event.id: event for event in numbered}
        return [known[event.id] for event in events]

    async def read(self, tenant: str, wanted: Wanted, *, after: int, limit: int) -> Sequence[Event]:
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(
                _SQL["read"], after, list(wanted.names), wanted.session_id, wanted.start, wanted.end, limit
            )
        return [_event(row) for row in rows]

    async def last_sequence(self, tenant: str) -> int:
        async with self._database.tenant(tenant) as connection:
            return int(await connection.fetchval(_SQL["last_sequence"]) or 0)


class PostgresWebhookStore:
    """One row a webhook, one a delivery, and one in the queue for each delivery that is to be tried."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, tenant: str, webhook: Webhook) -> Webhook:
        async with self._database.tenant(tenant) as connection:
            row = await connection.fetchrow(
                _SQL["put"], tenant, webhook.id, webhook.url, webhook.display_name, list(webhook.event_names),
                webhook.format.value, webhook.sealed_secret, webhook.enabled, webhook.created_at,
            )  # fmt: skip
        return _webhook(row)

    async def find(self, tenant: str, webhook_id: str) -> Webhook | None:
        async with self._database.tenant(tenant) as connection:
            row = await connection.fetchrow(_SQL["find"], webhook_id)
        return _webhook(row) if row else None

    async def every(self, tenant: str) -> Sequence[Webhook]:
        async with self._database.tenant(tenant) as connection:
            return [_webhook(row) for row in await connection.fetch(_SQL["every"])]

    async def delete(self, tenant: str, webhook_id: str) -> bool:
        async with self._database.tenant(tenant) as connection:
            await connection.execute(_SQL["delete_queued"], tenant, webhook_id)
            return await connection.fetchval(_SQL["delete"], webhook_id) is not None

    async def add(self, tenant: str, deliveries: Sequence[Delivery]) -> None:
        async with self._database.tenant(tenant) as connection:
            for one in deliveries:
                added = await connection.fetchval(
                    _SQL["add"], tenant, one.id, one.webhook_id, one.event_sequence, one.event_name, one.status.value,
                    one.attempts, one.last_code, one.last_error, one.next_attempt_at, one.created_at,
                )  # fmt: skip
                if added:
                    await _queue(connection, tenant, one, one.webhook_id)

    async def claim(self, now: datetime, *, until: datetime, limit: int, busy: Sequence[str]) -> Sequence[Due]:
        async with self._database.transaction() as connection:
            rows = await connection.fetch(_SQL["claim"], now, until, limit, list(busy))
        return [Due(row["tenant_id"], row["delivery_id"], row["webhook_id"]) for row in rows]

    async def delivery(self, tenant: str, delivery_id: str) -> Delivery | None:
        async with self._database.tenant(tenant) as connection:
            row = await connection.fetchrow(_SQL["delivery"], delivery_id)
        return _delivery(row) if row else None

    async def record(self, tenant: str, delivery: Delivery) -> None:
        async with self._database.tenant(tenant) as connection:
            webhook_id = await connection.fetchval(
                _SQL["record"], delivery.id, delivery.status.value, delivery.attempts, delivery.last_code,
                delivery.last_error, delivery.next_attempt_at,
            )  # fmt: skip
            if webhook_id:
                await _queue(connection, tenant, delivery, webhook_id)

    async def deliveries(
        self, tenant: str, webhook_id: str, *, status: Status | None, page: Page
    ) -> Sequence[Delivery]:
        seen = page.place
        async with self._database.tenant(tenant) as connection:
            rows = await connection.fetch(
                _SQL["deliveries"], webhook_id, status.value if status else "", *seen, page.size + 1
            )
        return [_delivery(row) for row in rows]


async def _queue(connection: Connection, tenant: str, delivery: Delivery, webhook_id: str) -> None:
    if delivery.next_attempt_at is None:
        await connection.execute(_SQL["dequeue"], tenant, delivery.id)
    else:
        await connection.execute(_SQL["enqueue"], tenant, delivery.id, webhook_id, delivery.next_attempt_at)


def _columns(event: Event) -> tuple[Any, ...]:
    return (
        event.sequence, event.id, event.name, event.occurred_at, event.source, event.subject, event.session_id,
        event.agent, event.data,
    )  # fmt: skip


def _event(row: Any) -> Event:
    return Event(
        id=row["id"],
        name=row["name"],
        occurred_at=row["occurred_at"],
        source=row["source"],
        subject=row["subject"],
        session_id=row["session_id"],
        agent=row["agent"],
        data=row["data"],
        sequence=row["sequence"],
    )


def _webhook(row: Any) -> Webhook:
    return Webhook(
        id=row["id"],
        url=row["url"],
        display_name=row["display_name"],
        event_names=tuple(row["event_names"]),
        format=Format(row["format"]),
        sealed_secret=row["sealed_secret"],
        enabled=row["enabled"],
        created_at=row["created_at"],
    )


def _delivery(row: Any) -> Delivery:
    return Delivery(
        id=row["id"],
        webhook_id=row["webhook_id"],
        event_sequence=row["event_sequence"],
        event_name=row["event_name"],
        status=Status(row["status"]),
        created_at=row["created_at"],
        attempts=row["attempts"],
        last_code=row["last_code"],
        last_error=row["last_error"],
        next_attempt_at=row["next_attempt_at"],
    )
