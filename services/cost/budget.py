"""Budgets: whose they are, when they count anew, and what happens at their limits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from shared.identity import Purse

EACH: Final = "*"
# Beyond the longest life of a credential with a purse, and as late as an entry may still come in.
PURSES_LAST: Final = timedelta(days=35)


class Level(StrEnum):
    """Whose budget it is, from the whole to the part."""

    TENANT = "tenant"
    TEAM = "team"
    USER = "user"
    AGENT = "agent"
    SESSION = "session"
    SUB_AGENT = "sub_agent"
    CREDENTIAL = "credential"


class Window(StrEnum):
    """When what is spent counts anew: by the calendar, in UTC."""

    TOTAL = "total"
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"

    def bounds(self, at: datetime) -> tuple[datetime, datetime | None]:
        """When the window that holds this instant began, and when it ends; TOTAL never does."""
        hour = at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        match self:
            case Window.TOTAL:
                return datetime(1970, 1, 1, tzinfo=UTC), None
            case Window.HOUR:
                return hour, hour + timedelta(hours=1)
            case Window.DAY:
                day = hour.replace(hour=0)
                return day, day + timedelta(days=1)
            case Window.MONTH:
                month = hour.replace(hour=0, day=1)
                return month, (month + timedelta(days=32)).replace(day=1)


class SoftAction(StrEnum):
    """What happens beyond a soft limit, besides an alert."""

    ALERT = "alert"
    DOWNGRADE = "downgrade"
    ASK = "ask"


_TENANT: Final = f"{Level.TENANT}:"
_NAMED: Final = tuple(f"{level}:" for level in (Level.TEAM, Level.USER, Level.AGENT, Level.SESSION, Level.SUB_AGENT))
_CREDENTIAL: Final = f"{Level.CREDENTIAL}:"


@dataclass(frozen=True, slots=True)
class Path:
    """On whose behalf a call spends, from the whole to the part. Empty: nobody at that level."""

    team: str = ""
    user: str = ""
    agent: str = ""
    session_id: str = ""
    sub_agent: str = ""
    purses: tuple[Purse, ...] = ()

    @property
    def scopes(self) -> tuple[str, ...]:
        """The keys of all budgets this spends from; of an agent, its version's and that of all versions."""
        versions = dict.fromkeys((self.agent, self.agent.partition("@")[0]))
        parts = ((self.team,), (self.user,), versions, (self.session_id,), (self.sub_agent,))
        named = [level + name for level, names in zip(_NAMED, parts, strict=True) for name in names if name]
        return (_TENANT, *named, *[_CREDENTIAL + purse.id for purse in self.purses])


NOBODY: Final = Path()


def scope(level: Level, name: str) -> str:
    """The key of a part of a tenant, for example `agent:Athena@1.0.0`."""
    return f"{level}:{name}"


def each(scope_key: str) -> str:
    """The key of the budget that each part of this level has."""
    return scope_key[: scope_key.index(":") + 1] + EACH


def counted_each(scopes: Iterable[str]) -> dict[str, str]:
    """By the key of the budget that each of a level has: the part that a call counts for. Of an agent, its version."""
    found: dict[str, str] = {}
    for key in scopes:
        found.setdefault(each(key), key)
    return found


@dataclass(frozen=True, slots=True)
class Limits:
    """What is set: how much which part of the tenant may spend in which window."""

    limit: int
    level: Level = Level.TENANT
    name: str = ""
    window: Window = Window.TOTAL
    soft_limit: int = 0
    soft_action: SoftAction = SoftAction.ALERT

    @property
    def scope(self) -> str:
        return scope(self.level, self.name)


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be spent and has been, in micro-USD. For an EACH budget `name` says which part this is about."""

    id: str
    limits: Limits
    settled: int
    leased: int
    updated_at: datetime
    name: str = ""


@dataclass(frozen=True, slots=True)
class Passed:
    """A limit in the way of a call, or a soft one behind it."""

    budget_id: str
    scope: str
    window: Window
    amount: int
    action: SoftAction | None  # None: the limit itself
