"""Which part of a span of time is summed from days, which from hours, and which from single entries."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(9999, 1, 1, tzinfo=UTC)
_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Segments:
    """Instants in order: entries, hours, days, hours, entries lie between each and the next."""

    start: datetime
    first_hour: datetime
    first_day: datetime
    last_day: datetime
    last_hour: datetime
    end: datetime

    @classmethod
    def entries(cls, start: datetime | None, end: datetime | None) -> Segments:
        """All of [start, end) from single entries."""
        begin, finish = start or EARLIEST, max(end or LATEST, start or EARLIEST)
        return cls(begin, finish, finish, finish, finish, finish)

    @classmethod
    def of(cls, start: datetime | None, end: datetime | None, *, by_hour: bool = False) -> Segments:
        """The segments of [start, end); with `by_hour` no day is taken whole."""
        entries = cls.entries(start, end)
        begin, finish = entries.start, entries.end
        first_hour, last_hour = _next(begin, _HOUR), _previous(finish, _HOUR)
        if first_hour >= last_hour:
            return entries
        first_day, last_day = _next(first_hour, _DAY), _previous(last_hour, _DAY)
        if by_hour or first_day >= last_day:
            first_day = last_day = last_hour
        return cls(begin, first_hour, first_day, last_day, last_hour, finish)


def _previous(at: datetime, unit: timedelta) -> datetime:
    return at - (at - EARLIEST) % unit


def _next(at: datetime, unit: timedelta) -> datetime:
    return -(-(at - EARLIEST) // unit) * unit + EARLIEST
