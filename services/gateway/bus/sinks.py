"""Sinks and hooks: code of the operator's own that is told of events, in this process, where it can hurt nobody."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

from services.gateway.bus.event import Event, matches
from services.gateway.bus.hooks import Hooks
from shared.log import log
from shared.tasks import supervised
from shared.telemetry import meter

_WAITING: Final = 1000

_lost = meter.create_counter("gateway_sink_lost", description="events a sink was too slow for, by sink")


class Sink(Protocol):
    """What an operator writes. `names` are the events it is told of: exact, "session.*" or "*"."""

    names: Sequence[str]

    async def take(self, tenant: str, event: Event) -> None:
        """Is told of one event, one after another. What it raises is logged, and the next event comes all the same."""


@dataclass(slots=True)
class _Fed:
    """A sink and what waits for it."""

    sink: Sink
    waiting: asyncio.Queue[tuple[str, Event]] = field(default_factory=lambda: asyncio.Queue(_WAITING))


class Sinks:
    """All of them, each with a queue of its own: one that is slow loses events and delays nobody."""

    def __init__(self, sinks: Sequence[Sink] = ()) -> None:
        self._fed = [_Fed(sink) for sink in sinks]

    def offer(self, tenant: str, events: Sequence[Event]) -> None:
        for fed in self._fed:
            for event in events:
                if matches(event.name, fed.sink.names):
                    _put(fed, tenant, event)

    @asynccontextmanager
    async def fed(self) -> AsyncIterator[None]:
        """Feeds every sink while the block runs."""
        async with AsyncExitStack() as stack:
            for fed in self._fed:
                await stack.enter_async_context(supervised(f"sink-{type(fed.sink).__name__}", partial(_feed, fed)))
            yield


def load(factories: Sequence[str]) -> Sequence[Sink]:
    """Sinks by name, each `package.module:factory` of a sink or of hooks. Raises ImportError and AttributeError."""
    found: list[Sink] = []
    for name in factories:
        module, _, factory = name.partition(":")
        made: Sink | Hooks = getattr(importlib.import_module(module), factory)()
        if isinstance(made, Hooks):
            found.extend(made.sinks)
        else:
            found.append(made)
    return found


def _put(fed: _Fed, tenant: str, event: Event) -> None:
    try:
        fed.waiting.put_nowait((tenant, event))
    except asyncio.QueueFull:
        _lost.add(1, {"sink": type(fed.sink).__name__})


async def _feed(fed: _Fed) -> None:
    """A sink that raises is started again by the supervisor, with the next event."""
    while True:
        tenant, event = await fed.waiting.get()
        await fed.sink.take(tenant, event)


class LogSink:
    """An example: every event of a kind as a line of the log."""

    names: Sequence[str] = ("session.*", "violation.raised", "agent.error")

    async def take(self, tenant: str, event: Event) -> None:
        log.info("event.seen", tenant=tenant, name=event.name, sequence=event.sequence, session_id=event.session_id)
