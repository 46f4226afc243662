"""The worker that delivers: claims what is due, tries, tries again later, and sets aside what will not go."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Final

from services.gateway.bus.event import Event, Wanted
from services.gateway.bus.sending import Outcome, Sender
from services.gateway.bus.store import Delivery, Due, EventStore, Status, WebhookStore
from shared.clock import Clock
from shared.log import log
from shared.rpc.channel import jitter
from shared.telemetry import meter

_CLAIMED_FOR: Final = timedelta(seconds=60)
_FIRST_PAUSE: Final = timedelta(seconds=2)
_LONGEST_PAUSE: Final = timedelta(hours=1)

_tries = meter.create_counter("gateway_webhook_tries", description="tries of deliveries, by outcome")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a webhook is tried: with 10 tries and pauses that double from 2 s, for about 17 minutes."""

    attempts: int = 10
    at_once: int = 64
    at_once_each: int = 4
    poll: timedelta = timedelta(milliseconds=500)


class Deliverer:
    """One a replica; replicas share the work through the queue."""

    def __init__(
        self, webhooks: WebhookStore, events: EventStore, sender: Sender, *, clock: Clock, patience: Patience
    ) -> None:
        self._webhooks = webhooks
        self._events = events
        self._sender = sender
        self._clock = clock
        self._patience = patience
        self._busy: Counter[str] = Counter()

    async def run(self) -> None:
        """For ever. No webhook has more than its share of the tries under way, so none waits for another."""
        async with asyncio.TaskGroup() as tries:
            while True:
                claimed = await self._claim()
                for due in claimed:
                    self._busy[due.webhook_id] += 1
                    tries.create_task(self._try(due))
                if not claimed:
                    await asyncio.sleep(self._patience.poll.total_seconds())
                else:
                    await asyncio.sleep(0)

    async def _claim(self) -> list[Due]:
        room = self._patience.at_once - self._busy.total()
        if room <= 0:
            return []
        busy = [webhook for webhook, count in self._busy.items() if count >= self._patience.at_once_each]
        now = self._clock.now()
        # One claim may hold many of one webhook: what is more than its share is left for the next round.
        found = await self._webhooks.claim(now, until=now + _CLAIMED_FOR, limit=room, busy=busy)
        return await self._share(list(found), now)

    async def _share(self, found: list[Due], now: datetime) -> list[Due]:
        taken: list[Due] = []
        counted = Counter(self._busy)
        for due in found:
            if counted[due.webhook_id] < self._patience.at_once_each:
                counted[due.webhook_id] += 1
                taken.append(due)
            elif delivery := await self._webhooks.delivery(due.tenant, due.delivery_id):
                await self._webhooks.record(due.tenant, replace(delivery, next_attempt_at=now))
        return taken

    async def _try(self, due: Due) -> None:
        try:
            await self._deliver(due)
        finally:
            self._busy[due.webhook_id] -= 1
            if not self._busy[due.webhook_id]:
                del self._busy[due.webhook_id]

    async def _deliver(self, due: Due) -> None:
        webhook = await self._webhooks.find(due.tenant, due.webhook_id)
        delivery = await self._webhooks.delivery(due.tenant, due.delivery_id)
        if webhook is None or delivery is None or delivery.status is not Status.PENDING:
            return
        event = await self._event(due.tenant, delivery.event_sequence)
        now = self._clock.now()
        outcome = await self._sender.send(due.tenant, webhook, event, delivery.id, now)
        after = judged(delivery, outcome, self._clock.now(), attempts=self._patience.attempts)
        await self._webhooks.record(due.tenant, after)
        _tries.add(1, {"status": after.status.value})
        if after.status is Status.DEAD:
            log.warning("webhook.dead", webhook_id=webhook.id, delivery_id=delivery.id, why=after.last_error)

    async def _event(self, tenant: str, sequence: int) -> Event:
        (event,) = await self._events.read(tenant, Wanted(), after=sequence - 1, limit=1)
        return event


def judged(delivery: Delivery, outcome: Outcome, now: datetime, *, attempts: int) -> Delivery:
    """The delivery after a try: taken, due again after a pause, or dead; whose address is gone for good is not tried
    again, as standardwebhooks.com has it.
    """
    after = replace(
        delivery,
        attempts=delivery.attempts + 1,
        last_code=outcome.code,
        last_error=outcome.error,
        status=Status.DELIVERED,
        next_attempt_at=None,
    )
    if outcome.taken:
        return after
    if after.attempts >= attempts or outcome.code == HTTPStatus.GONE:
        return replace(after, status=Status.DEAD)
    return replace(after, status=Status.PENDING, next_attempt_at=now + (outcome.retry_after or pause(after.attempts)))


def pause(attempts: int) -> timedelta:
    """After so many tries: doubling, up to an hour, jittered."""
    longest = min(_FIRST_PAUSE * 2 ** (attempts - 1), _LONGEST_PAUSE)
    return timedelta(seconds=jitter(longest.total_seconds()))
