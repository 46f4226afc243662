"""What is tried next, and what never is."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inference.course import Course
from services.inference.errors import (
    ContentFiltered,
    ContextTooLong,
    PolicyBlocked,
    ProviderAuthFailed,
    ProviderOverloaded,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
    StreamBroken,
)
from services.inference.providers.synthetic import SyntheticProvider
from services.inference.route import Model, Target
from shared.errors import MeshError

BASE = timedelta(milliseconds=200)
PASSING = [ProviderRateLimited, ProviderOverloaded, ProviderUnavailable, ProviderTimeout, StreamBroken]
FINAL = [ProviderRejected, ContentFiltered, PolicyBlocked]


def target(name: str, context_tokens: int = 0) -> Target:
    return Target(Model(name, "synthetic", context_tokens=context_tokens), SyntheticProvider(timedelta()))


def course(*names: str, pinned: bool = False, jitter: float = 1.0) -> Course:
    return Course([target(name) for name in names], pinned=pinned, base=BASE, jitter=lambda: jitter)


def way(on: Course, failure: MeshError, *, shown: bool = False) -> list[str]:
    """Who is asked after failure upon failure."""
    names = []
    while step := on.after(failure, shown=shown):
        names.append(step.target.model.name)
    return names


@pytest.mark.parametrize("kind", PASSING)
def test_a_passing_failure_is_tried_three_times_and_then_elsewhere(kind: type[MeshError]) -> None:
    assert way(course("a", "b"), kind("no")) == ["a", "a", "b", "b", "b"]


def test_refused_credentials_are_not_tried_again() -> None:
    assert way(course("a", "b"), ProviderAuthFailed("no")) == ["b"]


@pytest.mark.parametrize("kind", FINAL)
def test_what_is_wrong_or_forbidden_is_not_asked_elsewhere(kind: type[MeshError]) -> None:
    assert way(course("a", "b"), kind("no")) == []


def test_a_pinned_course_stays() -> None:
    assert way(course("a", "b", pinned=True), ProviderUnavailable("no")) == ["a", "a"]


def test_a_pinned_course_does_not_void_what_was_shown() -> None:
    assert way(course("a", "b", pinned=True), StreamBroken("no"), shown=True) == []


def test_in_mid_stream_the_next_comes_first_and_the_last_is_asked_again() -> None:
    assert way(course("a", "b"), StreamBroken("no"), shown=True) == ["b", "b", "b"]


def test_a_prompt_too_long_skips_to_a_roomier_model() -> None:
    chain = [target("a", 100), target("b", 100), target("c", 50), target("d", 200)]
    on = Course(chain, pinned=False, base=BASE, jitter=lambda: 0.0)
    step = on.after(ContextTooLong("no"), shown=False)
    assert step
    assert step.target.model.name == "d"


def test_pauses_double_and_are_jittered_down_to_half() -> None:
    on = course("a", jitter=1.0)
    steps = [on.after(ProviderUnavailable("no"), shown=False) for _ in range(2)]
    assert [step.wait for step in steps if step] == [BASE, BASE * 2]
    step = course("a", jitter=0.0).after(ProviderUnavailable("no"), shown=False)
    assert step
    assert step.wait == BASE / 2


@given(seconds=st.floats(0, 10), jitter=st.floats(0, 1))
def test_no_pause_is_shorter_than_the_retry_after(seconds: float, jitter: float) -> None:
    asked = timedelta(seconds=seconds)
    step = course("a", jitter=jitter).after(ProviderRateLimited("no", retry_after=asked), shown=False)
    assert step
    assert step.wait >= asked


def test_a_pause_over_ten_seconds_is_not_waited_out() -> None:
    assert way(course("a", "b"), ProviderRateLimited("no", retry_after=timedelta(seconds=11))) == ["b"]


@given(
    names=st.lists(st.sampled_from("abcdef"), min_size=1, max_size=6, unique=True),
    failures=st.lists(st.tuples(st.sampled_from([*PASSING, ProviderAuthFailed]), st.booleans()), max_size=40),
)
def test_every_course_ends(names: list[str], failures: list[tuple[type[MeshError], bool]]) -> None:
    on, asked = course(*names), 1
    for kind, shown in failures:
        if on.after(kind("no"), shown=shown) is None:
            break
        asked += 1
    assert asked <= 3 * len(names)
