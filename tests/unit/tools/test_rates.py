"""A tool's limit of calls a minute."""

from __future__ import annotations

from datetime import timedelta

from services.tools.rates import Rates
from shared.clock import FakeClock

ADA = ("acme", "ada", "adder")


def test_the_call_over_the_limit_is_told_when_to_come_back() -> None:
    clock = FakeClock()
    rates = Rates(clock)
    assert rates.take(ADA, per_minute=2) is None
    clock.advance(timedelta(seconds=20))
    assert rates.take(ADA, per_minute=2) is None
    assert rates.take(ADA, per_minute=2) == timedelta(seconds=40)


def test_the_window_slides() -> None:
    clock = FakeClock()
    rates = Rates(clock)
    rates.take(ADA, per_minute=1)
    clock.advance(timedelta(seconds=59))
    assert rates.take(ADA, per_minute=1) == timedelta(seconds=1)
    clock.advance(timedelta(seconds=1))
    assert rates.take(ADA, per_minute=1) is None


def test_a_refused_call_does_not_count() -> None:
    clock = FakeClock()
    rates = Rates(clock)
    rates.take(ADA, per_minute=1)
    for _ in range(10):
        rates.take(ADA, per_minute=1)
    clock.advance(timedelta(minutes=1))
    assert rates.take(ADA, per_minute=1) is None


def test_callers_and_tools_do_not_take_from_each_other() -> None:
    rates = Rates(FakeClock())
    for caller in (ADA, ("acme", "bob", "adder"), ("other", "ada", "adder"), ("acme", "ada", "search")):
        assert rates.take(caller, per_minute=1) is None


def test_no_limit_is_no_limit() -> None:
    rates = Rates(FakeClock())
    assert all(rates.take(ADA, per_minute=0) is None for _ in range(1000))


def test_callers_of_long_ago_are_forgotten() -> None:
    clock = FakeClock()
    rates = Rates(clock)
    for number in range(10_000):
        rates.take(("acme", str(number), "adder"), per_minute=1)
    clock.advance(timedelta(minutes=2))
    rates.take(ADA, per_minute=1)
    assert len(rates._calls) == 1
