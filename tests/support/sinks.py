"""A sink as an operator would write it, with a fault."""

from __future__ import annotations

from collections.abc import Sequence

from services.gateway.bus.event import Event
from services.gateway.bus.hooks import Hooks

TAKEN: list[str] = []
HOOKED: list[tuple[str, str, str]] = []


class Remembering:
    names: Sequence[str] = ("hook.*",)

    async def take(self, tenant: str, event: Event) -> None:
        if event.name == "hook.bad":
            raise RuntimeError("the sink's own fault")
        TAKEN.append(event.name)


def make() -> Remembering:
    return Remembering()


def hooks() -> Hooks:
    """Hooks as an operator would write them; the first has a fault."""
    made = Hooks()

    @made.on("session.*", "agent.error")
    async def faulty(tenant: str, event: Event) -> None:
        raise RuntimeError("the hook's own fault")

    @made.on("session.started", "session.finished")
    async def sessions(tenant: str, event: Event) -> None:
        HOOKED.append((tenant, event.name, event.session_id))

    @made.on("agent.error")
    async def errors(tenant: str, event: Event) -> None:
        HOOKED.append((tenant, event.name, event.agent))

    return made
