"""Times as callers give them: what Python cannot hold is refused by its field."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from shared import fields
from shared.errors import InvalidArgument


@pytest.mark.parametrize("seconds", [1 << 62, -(1 << 62), 253_402_300_800, -62_135_596_801])
def test_an_instant_beyond_the_calendar_is_refused(seconds: int) -> None:
    with pytest.raises(InvalidArgument) as raised:
        fields.instant(Timestamp(seconds=seconds), "start_time")
    assert raised.value.field == "start_time"


@pytest.mark.parametrize("seconds", [1 << 62, -(1 << 62), 315_576_000_001])
def test_a_span_beyond_ten_thousand_years_is_refused(seconds: int) -> None:
    with pytest.raises(InvalidArgument) as raised:
        fields.span(Duration(seconds=seconds), "timeout")
    assert raised.value.field == "timeout"


def test_times_within_their_limits_are_as_given() -> None:
    assert fields.instant(Timestamp(seconds=-62_135_596_800), "at") == datetime(1, 1, 1, tzinfo=UTC)
    assert fields.span(Duration(seconds=-315_576_000_000), "for") == timedelta(seconds=-315_576_000_000)
    assert fields.span(Duration(nanos=2_000), "for") == timedelta(microseconds=2)
