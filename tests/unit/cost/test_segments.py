"""A span of time is cut so that every instant is summed once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cost.budget import Window
from services.cost.segments import EARLIEST, LATEST, Segments

INSTANT = st.integers(0, 10 * 365 * 86_400 * 10**6).map(
    lambda micros: datetime(2020, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
)
SPAN = st.tuples(INSTANT, st.integers(0, 90 * 86_400 * 10**6)).map(
    lambda pair: (pair[0], pair[0] + timedelta(microseconds=pair[1]))
)


@given(SPAN, st.booleans())
def test_segments_lie_end_to_end_on_whole_hours_and_days(span: tuple[datetime, datetime], by_hour: bool) -> None:
    cut = Segments.of(*span, by_hour=by_hour)
    instants = [cut.start, cut.first_hour, cut.first_day, cut.last_day, cut.last_hour, cut.end]
    assert instants == sorted(instants)
    assert (instants[0], instants[-1]) == span
    if cut.last_hour > cut.first_hour:
        assert all((at - EARLIEST) % timedelta(hours=1) == timedelta() for at in instants[1:5])
        assert cut.first_hour - cut.start < timedelta(hours=1) > cut.end - cut.last_hour
    if cut.last_day > cut.first_day:
        assert not by_hour
        assert all((at - EARLIEST) % timedelta(days=1) == timedelta() for at in instants[2:4])


def test_all_of_time_is_days() -> None:
    cut = Segments.of(None, None)
    assert (cut.first_day, cut.last_day) == (EARLIEST, LATEST)


@pytest.mark.parametrize("window", [Window.HOUR, Window.DAY, Window.MONTH])
@given(at=INSTANT)
def test_a_window_holds_its_instants_and_the_next_begins_where_it_ends(window: Window, at: datetime) -> None:
    began, ends = window.bounds(at)
    assert ends is not None
    assert began <= at < ends
    assert window.bounds(began) == (began, ends)
    assert window.bounds(ends)[0] == ends
