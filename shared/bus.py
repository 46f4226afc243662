"""How a service tells the event bus: by a stream that gateway reads. Telling never waits and never fails."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from importlib import import_module
from itertools import islice
from typing import Any, Final, Protocol

from redis.asyncio import Redis

from shared.clock import Clock, SystemClock
from shared.log import configure
from shared.redis import RedisLost, open_redis
from shared.settings import MeshSettings
from shared.tasks import supervised
from shared.telemetry import meter

STREAM: Final = "bus:events"
LOGS: Final = "log:events"
# The tenant of what concerns the mesh itself; gateway gives it to the platform's own.
MESH: Final = "_mesh"
_KEPT: Final = 100_000
_WAITING: Final = 10_000
_BATCH: Final = 500
_PAUSE_SECONDS: Final = 0.1

_lost = meter.create_counter("bus_lost", description="events that were not told: the queue was full")


class Outlet(Protocol):
    """Where events go: Redis Streams, NATS JetStream, Kafka."""

    async def put(self, stream: str, entries: Sequence[Mapping[str, str]]) -> int:
        """How many went, in order; fewer than given when the other side is away, and the rest waits on."""


class RedisOutlet:
    """A pipeline of all of them, or none."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def put(self, stream: str, entries: Sequence[Mapping[str, str]]) -> int:
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for entry in entries:
                    pipe.xadd(stream, dict(entry), maxlen=_KEPT, approximate=True)  # type: ignore[arg-type]
                await pipe.execute()
        except RedisLost:
            return 0
        return len(entries)


@asynccontextmanager
async def open_outlet(settings: MeshSettings) -> AsyncIterator[Outlet]:
    """The way to the bus that the setting bus_url names; empty: Redis."""
    if settings.bus_url.startswith(("nats://", "tls://")):
        bus_nats = import_module("shared.bus_nats")  # loaded where it is wanted
        async with bus_nats.connected(settings.bus_url) as client:
            yield bus_nats.NatsOutlet(await bus_nats.stream_of(client))
        return
    if settings.bus_url.startswith("kafka"):
        bus_kafka = import_module("shared.bus_kafka")
        async with bus_kafka.producing(settings.bus_url) as producer:
            yield bus_kafka.KafkaOutlet(producer)
        return
    async with open_redis(settings.redis_url.get_secret_value()) as redis:
        yield RedisOutlet(redis)


class Emitter:
    """Events wait in a bounded queue and go in batches; when it is full the newest are lost and counted."""

    def __init__(self, outlet: Outlet, clock: Clock, *, source: str, stream: str = STREAM) -> None:
        self._outlet = outlet
        self._clock = clock
        self._source = source
        self._stream = stream
        self._waiting: deque[dict[str, str]] = deque()

    def emit(self, tenant: str, name: str, *, event_id: str = "", **fields: Any) -> None:
        """Tells of something that happened. `fields` are subject, session_id, agent and data, as in AgentEvent; an
        `event_id` made of what happened makes telling it twice harmless. May be called from any thread.
        """
        if len(self._waiting) >= _WAITING:
            _lost.add(1, {"stream": self._stream})
            return
        told = entry(tenant, name, source=self._source, time=self._clock.now(), event_id=event_id, **fields)
        self._waiting.append(told)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Sends while the block runs, and what is left at its end."""
        async with supervised(f"emit-{self._stream}", self._run):
            yield
        await self._send()

    async def _run(self) -> None:
        while True:
            await self._send()
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _send(self) -> None:
        """Sends what waits, in order. What does not go waits on."""
        while batch := list(islice(self._waiting, _BATCH)):
            sent = await self._outlet.put(self._stream, batch)
            for _ in range(sent):
                self._waiting.popleft()
            if sent < len(batch):
                return


def entry(tenant: str, name: str, *, source: str, time: datetime, event_id: str = "", **fields: Any) -> dict[str, str]:
    """An event in the form the stream has. `fields` as in Emitter.emit."""
    event = {"id": event_id, "name": name, "time": time.isoformat(), "source": source, **fields}
    return {"tenant": tenant, "event": json.dumps(event, ensure_ascii=False, default=str)}


@asynccontextmanager
async def bridged_logs(service: str, settings: MeshSettings) -> AsyncIterator[None]:
    """While the block runs, warnings and errors of this process go to the bus too, if the setting log_bus says so."""
    if not settings.log_bus:
        yield
        return
    async with open_outlet(settings) as outlet:
        emitter = Emitter(outlet, SystemClock(), source=service, stream=LOGS)
        async with emitter.running():
            configure(service, settings.log_level, bridge=LogBridge(emitter))
            try:
                yield
            finally:
                configure(service, settings.log_level)


class LogBridge:
    """A structlog processor: what is logged as a warning or worse is told to the bus as well, without stack traces."""

    def __init__(self, emitter: Emitter) -> None:
        self._emitter = emitter

    def __call__(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        level = str(event.get("level", ""))
        if level in {"warning", "error", "critical"} and not str(event.get("event", "")).startswith("bus."):
            name = "log.warning" if level == "warning" else "log.error"
            told = {key: str(value)[:1000] for key, value in event.items() if key[:1] != "_" and key != "exc_info"}
            session_id = str(event.get("session_id", ""))
            self._emitter.emit(MESH, name, subject=str(event.get("event", ""))[:255], session_id=session_id, data=told)
        return event
