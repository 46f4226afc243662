"""What services publish through NATS JetStream, taken into the bus by one of the replicas."""

from __future__ import annotations

import json
from typing import Final

from nats.errors import TimeoutError as NothingNew

from services.gateway.bus.bus import Bus
from services.gateway.bus.intake import Published, take
from shared.bus_nats import ROOT, connected, stream_of
from shared.log import log

_GROUP: Final = "gateway"
_BATCH: Final = 200
_BLOCK_SECONDS: Final = 1.0


class NatsIntake:
    """A durable consumer that all replicas share: at least once from NATS, once into the store by the event's id."""

    def __init__(self, url: str, bus: Bus, *, platform: str) -> None:
        self._url = url
        self._bus = bus
        self._platform = platform

    async def run(self) -> None:
        """For ever. What a replica took and did not finish, another takes up after half a minute."""
        async with connected(self._url) as client:
            jetstream = await stream_of(client)
            waiting = await jetstream.pull_subscribe(f"{ROOT}>", durable=_GROUP)
            while True:
                try:
                    messages = await waiting.fetch(_BATCH, timeout=_BLOCK_SECONDS)
                except NothingNew:
                    continue
                found = [_published(f"nats-{message.metadata.sequence.stream}", message.data) for message in messages]
                await take(self._bus, self._platform, [one for one in found if one])
                for message in messages:
                    await message.ack()


def _published(default_id: str, data: bytes) -> Published | None:
    try:
        entry = json.loads(data)
        return Published(default_id, str(entry["tenant"]), str(entry["event"]))
    except (ValueError, KeyError, TypeError):
        log.error("bus.entry_dropped", stream="nats")
        return None
