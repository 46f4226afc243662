"""A sink as an operator would write it, with a fault."""

from __future__ import annotations

from collections.abc import Sequence

from services.gateway.bus.event import Event

TAKEN: list[str] = []


class Remembering:
    names: Sequence[str] = ("hook.*",)

    async def take(self, tenant: str, event: Event) -> None:
        if event.name == "hook.bad":
            raise RuntimeError("the sink's own fault")
        TAKEN.append(event.name)


def make() -> Remembering:
    return Remembering()
