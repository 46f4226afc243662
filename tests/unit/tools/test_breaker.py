"""The circuit breaker: closed, open, half open."""

from __future__ import annotations

from datetime import timedelta

import pytest

from services.tools.breaker import Breaker, Circuit
from shared.clock import FakeClock

KEY = ("acme", "search@1.0.0")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def breaker(clock: FakeClock) -> Breaker:
    return Breaker(clock, failures=3, recovery=timedelta(seconds=30))


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        assert breaker.wait(KEY) is None
        breaker.failed(KEY)


def test_it_opens_at_the_threshold_and_says_how_long(breaker: Breaker, clock: FakeClock) -> None:
    fail(breaker, 2)
    assert breaker.circuit(KEY) is Circuit.CLOSED
    fail(breaker, 1)
    clock.advance(timedelta(seconds=10))
    assert (breaker.circuit(KEY), breaker.wait(KEY)) == (Circuit.OPEN, timedelta(seconds=20))


def test_a_success_in_between_starts_the_count_anew(breaker: Breaker) -> None:
    fail(breaker, 2)
    breaker.succeeded(KEY)
    fail(breaker, 2)
    assert breaker.circuit(KEY) is Circuit.CLOSED


def test_half_open_lets_one_call_try(breaker: Breaker, clock: FakeClock) -> None:
    fail(breaker, 3)
    clock.advance(timedelta(seconds=30))
    assert breaker.circuit(KEY) is Circuit.HALF_OPEN
    assert breaker.wait(KEY) is None
    assert breaker.wait(KEY) == timedelta(seconds=1)
    breaker.succeeded(KEY)
    assert breaker.circuit(KEY) is Circuit.CLOSED


def test_a_failed_trial_opens_it_again(breaker: Breaker, clock: FakeClock) -> None:
    fail(breaker, 3)
    clock.advance(timedelta(seconds=30))
    fail(breaker, 1)
    assert breaker.wait(KEY) == timedelta(seconds=30)


def test_an_abandoned_trial_leaves_room_for_the_next(breaker: Breaker, clock: FakeClock) -> None:
    fail(breaker, 3)
    clock.advance(timedelta(seconds=30))
    assert breaker.wait(KEY) is None
    breaker.abandoned(KEY)
    assert breaker.wait(KEY) is None


def test_circuits_are_apart(breaker: Breaker) -> None:
    fail(breaker, 3)
    assert breaker.wait(("other", "search@1.0.0")) is None
