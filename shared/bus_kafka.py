"""The bus's way through Kafka, for sites that have it: a topic for each of Redis's streams, named as it is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError
from aiokafka.helpers import create_ssl_context

from shared.bus import LOGS, STREAM

_AS_THE_BROKER_SAYS: Final = -1
_PATIENCE_SECONDS: Final = 2.0
_Sent = asyncio.Future[Any]


class KafkaOutlet:
    """Publishes and waits until the brokers have it. What is still under way when patience ends is waited for again by
    the next call, and not sent twice.
    """

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._producer = producer
        self._under_way: dict[int, tuple[Mapping[str, str], _Sent]] = {}

    async def put(self, stream: str, entries: Sequence[Mapping[str, str]]) -> int:
        """How many went, in order; those after them wait for Kafka to be back. Entries are told apart by identity."""
        begun: list[_Sent] = []
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                for entry in entries:
                    begun.append(await self._begun(stream, entry))  # noqa: PERF401 - those begun before the limit count
                await asyncio.wait(begun)
        except (KafkaError, TimeoutError):
            pass
        return self._settled(entries, begun)

    async def _begun(self, stream: str, entry: Mapping[str, str]) -> _Sent:
        if known := self._under_way.get(id(entry)):
            return known[1]
        key, value = entry.get("tenant", "").encode(), json.dumps(entry).encode()
        sent: _Sent = await self._producer.send(topic(stream), value, key)
        self._under_way[id(entry)] = (entry, sent)
        return sent

    def _settled(self, entries: Sequence[Mapping[str, str]], begun: Sequence[_Sent]) -> int:
        went, whole = 0, True
        for entry, sent in zip(entries, begun, strict=False):
            good = sent.done() and not sent.cancelled() and sent.exception() is None
            if whole and good:
                went += 1
            whole = whole and good
            if sent.done() and (whole or not good):
                del self._under_way[id(entry)]
        return went


@asynccontextmanager
async def producing(url: str) -> AsyncIterator[AIOKafkaProducer]:
    """A producer that writes each event once, and waits for all in-sync replicas. Raises KafkaError if none answers at
    first.
    """
    producer = AIOKafkaProducer(acks="all", enable_idempotence=True, linger_ms=5, **where(url))
    await producer.start()
    try:
        await _ensure_topics(url)
        yield producer
    finally:
        await producer.stop()


def where(url: str) -> dict[str, Any]:
    """`kafka://host:port,host:port`, or `kafka+ssl://` with the authorities that the machine trusts."""
    parts = urlsplit(url)
    found: dict[str, Any] = {"bootstrap_servers": parts.netloc}
    if parts.scheme == "kafka+ssl":
        found |= {"security_protocol": "SSL", "ssl_context": create_ssl_context()}
    return found


def topic(stream: str) -> str:
    """`bus:events` is agentnet.bus.events."""
    return f"agentnet.{stream.replace(':', '.')}"


async def _ensure_topics(url: str) -> None:
    admin = AIOKafkaAdminClient(**where(url))
    await admin.start()
    try:
        for stream in (STREAM, LOGS):
            await _ensure(admin, topic(stream))
    finally:
        await admin.close()


async def _ensure(admin: AIOKafkaAdminClient, name: str) -> None:
    try:
        await admin.create_topics([NewTopic(name, _AS_THE_BROKER_SAYS, _AS_THE_BROKER_SAYS, replica_assignments={})])
    except TopicAlreadyExistsError:
        return
