"""What was found of agents, kept: until a replica changes them, of which Postgres tells all, or for half a minute."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final, Protocol

import asyncpg

from agentnet.orchestrator.v1 import agent_pb2
from shared.clock import Clock
from shared.telemetry import meter

CHANNEL: Final = "orchestrator_agents"
_KEPT: Final = 10_000
_LONGEST: Final = timedelta(seconds=30)
_looks = meter.create_counter("agent_definition_lookups", description="look-ups of agents, by whether they were known")

Place = tuple[str, str]


class Source(Protocol):
    """Where versions are looked up."""

    async def versions(self, tenant: str, name: str) -> Sequence[agent_pb2.Agent]:
        """All versions of an agent."""


class Versions:
    """The versions of agents by tenant and name. What is given out is shared: nobody may change it."""

    def __init__(self, source: Source, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._known: OrderedDict[Place, tuple[timedelta, Sequence[agent_pb2.Agent]]] = OrderedDict()
        # Looks in flight: what is forgotten meanwhile must not come back with them.
        self._looking: dict[Place, list[_Look]] = {}

    async def versions(self, tenant: str, name: str) -> Sequence[agent_pb2.Agent]:
        """All versions of an agent, perhaps as they were a moment ago."""
        place = (tenant, name)
        until, found = self._known.get(place, (timedelta(), ()))
        if until > self._clock.monotonic():
            _looks.add(1, {"known": "true"})
            return found
        _looks.add(1, {"known": "false"})
        return await self._look(place)

    def forget(self, tenant: str, name: str) -> None:
        """Somebody changed the agent."""
        self._known.pop((tenant, name), None)
        for look in self._looking.get((tenant, name), ()):
            look.stale = True

    def forget_all(self) -> None:
        """Nobody knows what changed meanwhile."""
        self._known.clear()
        for looks in self._looking.values():
            for look in looks:
                look.stale = True

    async def _look(self, place: Place) -> Sequence[agent_pb2.Agent]:
        look = _Look()
        self._looking.setdefault(place, []).append(look)
        try:
            found = await self._source.versions(*place)
        finally:
            self._looking[place].remove(look)
            if not self._looking[place]:
                del self._looking[place]
        if found and not look.stale:
            self._known[place] = (self._clock.monotonic() + _LONGEST, found)
            self._known.move_to_end(place)
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return found


class _Look:
    """A look-up in flight."""

    stale = False


async def listen(dsn: str, versions: Versions, *, heard: Callable[[], None] = lambda: None) -> None:
    """Forgets what replicas say they changed, for as long as the connection holds; and all of it at the begin and the
    end, since what was said meanwhile went by.
    """
    connection = await asyncpg.connect(dsn)
    lost = asyncio.Event()

    def told(_connection: Any, _pid: int, _channel: str, place: object) -> None:
        tenant, _, name = str(place).rpartition("/")
        versions.forget(tenant, name)
        heard()

    try:
        connection.add_termination_listener(lambda _: lost.set())
        await connection.add_listener(CHANNEL, told)
        versions.forget_all()
        await lost.wait()
    finally:
        versions.forget_all()
        await connection.close()
