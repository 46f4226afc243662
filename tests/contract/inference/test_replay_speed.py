"""Replay beside the real embedded model."""

from __future__ import annotations

import pytest

from tests.bench.replay import compared


@pytest.mark.heavy
async def test_a_replay_says_the_same_a_hundred_times_faster_than_the_embedded_model() -> None:
    spoke, played, same = await compared()
    assert same
    assert spoke / played > 100
