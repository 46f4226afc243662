"""Asking a remote embedding model again: when, how often, and how long it waits in between."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest

from services.inference.embeddings.contract import Embedded
from services.inference.embeddings.retrying import Patience, RetryingEmbedder
from services.inference.errors import (
    ProviderAuthFailed,
    ProviderOverloaded,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
    StreamBroken,
)
from shared.errors import MeshError

PATIENCE = Patience(attempts=4, first_pause=timedelta(seconds=1), longest_pause=timedelta(seconds=3))
FOUND = Embedded(((1.0,),), 1, 0)


class Failing:
    """Fails as told, then answers."""

    def __init__(self, *failures: MeshError) -> None:
        self.failures = list(failures)
        self.calls = 0

    async def embed(self, texts: Sequence[str]) -> Embedded:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        return FOUND


def limited(seconds: float) -> ProviderRateLimited:
    return ProviderRateLimited("slow down", retry_after=timedelta(seconds=seconds))


def retrying(model: Failing) -> tuple[RetryingEmbedder, list[float]]:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    return RetryingEmbedder(model, PATIENCE, sleep=sleep), pauses


async def test_passing_failures_are_tried_again_with_growing_jittered_pauses() -> None:
    model = Failing(ProviderUnavailable("away"), StreamBroken("cut"), ProviderOverloaded("much to do"))
    embedder, pauses = retrying(model)
    assert await embedder.embed(["x"]) == FOUND
    assert model.calls == 4
    for pause, longest in zip(pauses, (1, 2, 3), strict=True):
        assert longest / 2 <= pause <= longest


async def test_the_provider_s_wait_is_kept() -> None:
    embedder, pauses = retrying(Failing(limited(2.5), limited(0)))
    assert await embedder.embed(["x"]) == FOUND
    assert pauses[0] == 2.5
    assert 1 <= pauses[1] <= 2


async def test_who_asks_for_more_than_our_patience_is_answered_with_the_failure() -> None:
    model = Failing(limited(3.1))
    embedder, pauses = retrying(model)
    with pytest.raises(ProviderRateLimited):
        await embedder.embed(["x"])
    assert (model.calls, pauses) == (1, [])


@pytest.mark.parametrize("error", [ProviderRejected("no"), ProviderAuthFailed("no"), ProviderTimeout("slow")])
async def test_what_would_fail_again_is_not_tried_again(error: MeshError) -> None:
    model = Failing(error)
    embedder, _ = retrying(model)
    with pytest.raises(type(error)):
        await embedder.embed(["x"])
    assert model.calls == 1


async def test_after_the_last_attempt_the_failure_is_told() -> None:
    model = Failing(*(ProviderUnavailable("away") for _ in range(9)))
    embedder, pauses = retrying(model)
    with pytest.raises(ProviderUnavailable):
        await embedder.embed(["x"])
    assert (model.calls, len(pauses)) == (4, 3)
