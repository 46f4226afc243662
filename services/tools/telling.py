"""What the event bus is told of calls: what tools say by `emit(kind, data)`, and who tries to get out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import count
from typing import Any, Final, Protocol

from services.tools.answer import EMITTED, Printed

# Names that the mesh itself tells under: a tool that says so has not made it true.
_OWN: Final = frozenset({"session", "turn", "violation", "agent", "tool", "budget", "log", "webhook"})
_NAME: Final = re.compile(r"([a-z][a-z0-9_]*)(\.[a-z0-9_]+)+")


class Bus(Protocol):
    """shared.bus.Emitter: waits for nothing and never fails."""

    def emit(self, tenant: str, name: str, *, event_id: str = "", **fields: Any) -> None: ...


class NoBus:
    """Tells nobody."""

    def emit(self, tenant: str, name: str, *, event_id: str = "", **fields: Any) -> None: ...


def telling(bus: Bus, tenant: str, context: Mapping[str, str], printed: Printed) -> Printed:
    """`printed`, and the bus as well for events, each with an id of its call's: telling it twice changes nothing.

    A kind in the form `noun.verb` is the name, unless the noun is the mesh's own; every other is "tool.emitted".
    """
    numbers = count(1)

    def told(stream: str, text: str) -> None:
        if stream == EMITTED:
            said = json.loads(text)
            data = {"kind": said["event"], "data": said["data"], "tool": context["tool"]}
            tell(bus, tenant, name_of(said["event"]), context, number=next(numbers), data=data)
        printed(stream, text)

    return told


def tell(bus: Bus, tenant: str, name: str, context: Mapping[str, str], *, number: int, data: Mapping[str, Any]) -> None:
    bus.emit(
        tenant, name, event_id=f"{context['invocation_id']}-{number}", subject=context["invocation_id"],
        session_id=context["session_id"], agent=context["agent"], data=dict(data),
    )  # fmt: skip


def name_of(kind: str) -> str:
    found = _NAME.fullmatch(kind)
    return kind if found and found[1] not in _OWN else "tool.emitted"
