"""Hooks on the mesh's lifecycle: functions of the operator's own, by the events they wait for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from services.gateway.bus.event import Event

Function = Callable[[str, Event], Awaitable[None]]


@dataclass(slots=True)
class Hook:
    """A function as a sink, with a queue of its own: what it raises or how long it takes is nobody else's matter."""

    names: Sequence[str]
    function: Function

    async def take(self, tenant: str, event: Event) -> None:
        await self.function(tenant, event)


class Hooks:
    """What the factory of a sink may return instead: many functions."""

    def __init__(self) -> None:
        self.sinks: list[Hook] = []

    def on(self, *names: str) -> Callable[[Function], Function]:
        """Registers the function below for events by these names: exact, "session.*" or "*". It is called with the
        tenant and the event, in the order of events.
        """

        def register(function: Function) -> Function:
            self.sinks.append(Hook(names, function))
            return function

        return register
