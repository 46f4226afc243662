"""Trying again, in both colours, under a breaker."""

from __future__ import annotations

from datetime import timedelta

import pytest

from shared.clock import FakeClock
from shared.errors import NotFound, ResourceExhausted, Unavailable
from shared.retry import CountingBreaker, Patience, with_retry

QUICK = Patience(attempts=4, first_pause=timedelta(seconds=1), longest_pause=timedelta(seconds=3))


class Flaky:
    """Fails as told, then answers."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        return "done"


class Pauses:
    """Remembers pauses and takes none."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.taken.append(seconds)

    def sleep_sync(self, seconds: float) -> None:
        self.taken.append(seconds)


async def called(work: Flaky, pauses: Pauses, *, sync: bool, breaker: CountingBreaker | None = None) -> str:
    how = with_retry(
        Unavailable,
        ResourceExhausted,
        patience=QUICK,
        breaker=breaker,
        sleep=pauses.sleep,
        sleep_sync=pauses.sleep_sync,
    )
    if sync:

        def plain() -> str:
            return work()

        return how(plain)()

    async def coloured() -> str:
        return work()

    return await how(coloured)()


@pytest.mark.parametrize("sync", [True, False])
async def test_passing_failures_are_tried_again_after_pauses_that_double_up_to_the_longest(*, sync: bool) -> None:
    work, pauses = Flaky(*[Unavailable("away")] * 3), Pauses()
    assert await called(work, pauses, sync=sync) == "done"
    assert work.calls == 4
    bounds = [(0.5, 1), (1, 2), (1.5, 3)]
    assert all(low <= pause <= high for pause, (low, high) in zip(pauses.taken, bounds, strict=True))


@pytest.mark.parametrize("sync", [True, False])
async def test_the_last_failure_is_raised_and_what_does_not_pass_is_not_tried_again(*, sync: bool) -> None:
    work, pauses = Flaky(*[Unavailable("away")] * 9), Pauses()
    with pytest.raises(Unavailable):
        await called(work, pauses, sync=sync)
    assert (work.calls, len(pauses.taken)) == (4, 3)
    work = Flaky(NotFound("no"))
    with pytest.raises(NotFound):
        await called(work, pauses, sync=sync)
    assert work.calls == 1


async def test_it_never_comes_sooner_than_asked_and_gives_up_when_asked_for_too_long() -> None:
    work, pauses = Flaky(ResourceExhausted("slow down", retry_after=timedelta(seconds=2.5))), Pauses()
    assert await called(work, pauses, sync=False) == "done"
    assert pauses.taken == [2.5]
    work = Flaky(ResourceExhausted("slow down", retry_after=timedelta(seconds=4)))
    with pytest.raises(ResourceExhausted):
        await called(work, pauses, sync=False)
    assert work.calls == 1


@pytest.mark.parametrize("sync", [True, False])
async def test_a_breaker_opens_at_its_threshold_and_one_call_tries_after_the_recovery(*, sync: bool) -> None:
    clock = FakeClock()
    breaker = CountingBreaker(failures=3, recovery=timedelta(seconds=30), clock=clock)
    work, pauses = Flaky(*[Unavailable("away")] * 4), Pauses()
    with pytest.raises(Unavailable, match="left alone"):
        await called(work, pauses, sync=sync, breaker=breaker)
    assert work.calls == 3
    with pytest.raises(Unavailable, match="left alone"):
        await called(work, pauses, sync=sync, breaker=breaker)
    assert work.calls == 3
    clock.advance(timedelta(seconds=30))
    with pytest.raises(Unavailable, match="left alone"):  # the trial fails: it is open again
        await called(work, pauses, sync=sync, breaker=breaker)
    assert work.calls == 4
    clock.advance(timedelta(seconds=30))
    assert await called(work, pauses, sync=sync, breaker=breaker) == "done"
    assert await called(work, pauses, sync=sync, breaker=breaker) == "done"
