"""What a window will have cost."""

from __future__ import annotations

from datetime import timedelta

from services.cost.anomalies import HOUR
from services.cost.forecast import forecast
from tests.support.spend import FIRST, spend


def test_most_months_end_inside_the_band() -> None:
    inside, off = 0, []
    for seed in range(40):
        values, _ = spend(seed, kinds=(), noise=0.3)
        now, end = FIRST + timedelta(days=40), FIRST + timedelta(days=54)
        known, real = values[: 40 * 24], sum(values[30 * 24 : 54 * 24])
        found = forecast(FIRST, known, spent=sum(values[30 * 24 : 40 * 24]), now=now, end=end, limit=None)
        inside += found.low <= real <= found.high
        off.append(abs(found.expected - real) / real)
    assert inside >= 0.7 * 40
    assert sum(off) / len(off) < 0.08


def test_without_a_week_the_present_pace_goes_on() -> None:
    found = forecast(FIRST, [100] * 10, spent=1000, now=FIRST + 10 * HOUR, end=FIRST + 24 * HOUR, limit=None)
    assert (found.expected, found.days_of_history) == (1000 + 14 * 100, 0)
    assert found.low < found.expected < found.high


def test_with_no_history_at_all_nothing_more_is_expected() -> None:
    found = forecast(FIRST, [], spent=7, now=FIRST, end=FIRST + 24 * HOUR, limit=10)
    assert (found.expected, found.exhausted_at) == (7, None)


def test_a_budget_says_when_it_will_be_spent() -> None:
    found = forecast(FIRST, [100] * 10, spent=1000, now=FIRST + 10 * HOUR, end=FIRST + 24 * HOUR, limit=1250)
    assert found.exhausted_at == FIRST + 13 * HOUR
    far = forecast(FIRST, [100] * 10, spent=1000, now=FIRST + 10 * HOUR, end=FIRST + 24 * HOUR, limit=10**6)
    assert far.exhausted_at is None
