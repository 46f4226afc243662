"""What services publish through Kafka, taken into the bus by one of the replicas."""

from __future__ import annotations

import json
from typing import Any, Final

from aiokafka import AIOKafkaConsumer

from services.gateway.bus.bus import Bus
from services.gateway.bus.intake import Published, take
from shared.bus import LOGS, STREAM
from shared.bus_kafka import topic, where
from shared.log import log

_GROUP: Final = "agentnet-gateway"
_BATCH: Final = 200
_BLOCK_MILLISECONDS: Final = 1000


class KafkaIntake:
    """A consumer group that all replicas share: at least once from Kafka, once into the store by the event's id."""

    def __init__(self, url: str, bus: Bus, *, platform: str) -> None:
        self._url = url
        self._bus = bus
        self._platform = platform

    async def run(self) -> None:
        """For ever. What a replica took and did not finish, another takes up when the group has noticed."""
        consumer = AIOKafkaConsumer(
            topic(STREAM),
            topic(LOGS),
            group_id=_GROUP,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            metadata_max_age_ms=5_000,
            **where(self._url),
        )
        await consumer.start()
        try:
            while True:
                got = await consumer.getmany(timeout_ms=_BLOCK_MILLISECONDS, max_records=_BATCH)
                found = [_published(record) for records in got.values() for record in records]
                if found:
                    await take(self._bus, self._platform, [one for one in found if one])
                    await consumer.commit()
        finally:
            await consumer.stop()


def _published(record: Any) -> Published | None:
    default_id = f"kafka-{record.topic}-{record.partition}-{record.offset}"
    try:
        entry = json.loads(record.value)
        return Published(default_id, str(entry["tenant"]), str(entry["event"]))
    except (ValueError, KeyError, TypeError):
        log.error("bus.entry_dropped", stream="kafka")
        return None
