"""The bus itself: keeps events, makes the deliveries of webhooks, wakes those who listen, tells the sinks."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final, Protocol

from services.gateway.bus.event import Event, Wanted, matches
from services.gateway.bus.sinks import Sinks
from services.gateway.bus.store import Delivery, EventStore, Status, WebhookStore
from shared.clock import Clock
from shared.ids import Ids

_BATCH: Final = 200
_HEARTBEAT: Final = timedelta(seconds=10)


class Live(Protocol):
    """How replicas learn that a tenant has new events. A call may be lost: listeners also look by themselves."""

    async def told(self, tenant: str) -> None:
        """Tells every replica."""

    async def wait(self, tenant: str, *, limit: timedelta) -> None:
        """Returns when there is news of the tenant, or after the limit."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What a listener is told: an event, or just how far the bus was looked at."""

    last_sequence: int
    event: Event | None = None


class Bus:
    """The events of all tenants, one tenant a call."""

    def __init__(
        self, events: EventStore, webhooks: WebhookStore, live: Live, sinks: Sinks, *, clock: Clock, ids: Ids
    ) -> None:
        self._events = events
        self._webhooks = webhooks
        self._live = live
        self._sinks = sinks
        self._clock = clock
        self._ids = ids

    async def publish(self, tenant: str, events: Sequence[Event]) -> Sequence[Event]:
        """Keeps events and has them told; publishing the same ids again changes nothing."""
        named = [event if event.id else replace(event, id=self._ids.new("evt")) for event in events]
        kept = await self._events.append(tenant, named)
        await self._deliver(tenant, kept)
        self._sinks.offer(tenant, kept)
        await self._live.told(tenant)
        return kept

    async def read(self, tenant: str, wanted: Wanted, *, after: int, limit: int) -> Sequence[Event]:
        """Events after a sequence, in order."""
        return await self._events.read(tenant, wanted, after=after, limit=limit)

    async def subscribe(self, tenant: str, wanted: Wanted, *, after: int | None) -> AsyncGenerator[Heard, None]:
        """Events after a sequence (None: from now on), then as they come, for ever; a sign of life when it is quiet."""
        place = await self._events.last_sequence(tenant) if after is None else after
        while True:
            end = await self._events.last_sequence(tenant)
            while found := await self._events.read(tenant, wanted, after=place, limit=_BATCH):
                for event in found:
                    place = event.sequence
                    yield Heard(place, event)
            if end <= place:
                yield Heard(place)
            place = max(place, end)
            await self._quiet(tenant, place)

    async def _quiet(self, tenant: str, place: int) -> None:
        """Waits for news, or for the time of a sign of life."""
        until = self._clock.monotonic() + _HEARTBEAT
        while (left := until - self._clock.monotonic()) > timedelta():
            await self._live.wait(tenant, limit=min(left, timedelta(seconds=1)))
            if await self._events.last_sequence(tenant) > place:
                return

    async def _deliver(self, tenant: str, events: Sequence[Event]) -> None:
        """A delivery for each webhook an event is for. Its id is made of both, so that none is made twice."""
        webhooks = [webhook for webhook in await self._webhooks.every(tenant) if webhook.enabled]
        now = self._clock.now()
        found = [
            Delivery(
                id=f"dlv_{webhook.id.removeprefix('whk_')}_{event.sequence}",
                webhook_id=webhook.id,
                event_sequence=event.sequence,
                event_name=event.name,
                status=Status.PENDING,
                created_at=now,
                next_attempt_at=now,
            )
            for event in events
            for webhook in webhooks
            if matches(event.name, webhook.event_names)
        ]
        if found:
            await self._webhooks.add(tenant, found)


class LocalLive:
    """News within this process."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    async def told(self, tenant: str) -> None:
        self.wake(tenant)

    def wake(self, tenant: str) -> None:
        for waiting in self._waiting.get(tenant, ()):
            waiting.set()

    async def wait(self, tenant: str, *, limit: timedelta) -> None:
        news = asyncio.Event()
        self._waiting[tenant].add(news)
        try:
            async with asyncio.timeout(limit.total_seconds()):
                await news.wait()
        except TimeoutError:
            return
        finally:
            self._waiting[tenant].discard(news)
            if not self._waiting[tenant]:
                del self._waiting[tenant]
