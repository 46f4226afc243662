"""How much of what is no memory is kept, and for how long: conversations and facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol


class Kind(StrEnum):
    """What is bounded. A fact that no longer holds counts among the facts too."""

    CONVERSATION = "conversation"
    FACT = "fact"
    ENDED_FACT = "ended_fact"


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many at most and for how many days; 0 is no bound."""

    at_most: int = 0
    days: int = 0


@dataclass(frozen=True, slots=True)
class Kept:
    """How many there are, and since when the oldest is there."""

    count: int
    oldest: datetime | None


class BoundsStore(Protocol):
    """The bounds of each tenant."""

    async def bounds(self, tenant: str) -> Mapping[Kind, Bounds]:
        """Those the tenant set."""

    async def set_bounds(self, tenant: str, kind: Kind, bounds: Bounds) -> None:
        """Sets them, in place of what was set before."""
