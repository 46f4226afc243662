"""Counts of common words are kept for a while, those of others are not."""

from __future__ import annotations

from datetime import timedelta

import pytest

from services.memory import common
from services.memory.common import CommonWords
from tests.support.memory import NOW


def test_a_common_word_is_counted_once_in_ten_minutes() -> None:
    words = CommonWords()
    words.note("a", {"plan": 5_000, "quito": 3}.items(), NOW)
    assert words.known("a", ["plan", "quito", "new"], NOW) == [5_000, None, None]
    assert words.known("b", ["plan"], NOW) == [None]
    words.note("a", {"plan": 5_000}.items(), NOW + timedelta(minutes=9))
    assert words.known("a", ["plan"], NOW + timedelta(minutes=10)) == [None]
    words.note("a", {"plan": 5_100}.items(), NOW + timedelta(minutes=10))
    assert words.known("a", ["plan"], NOW + timedelta(minutes=19)) == [5_100]


def test_the_longest_unasked_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "_KEPT", 2)
    words = CommonWords()
    for word in ("old", "asked", "old", "new"):
        words.note("a", [(word, 1_000)], NOW)
    assert words.known("a", ["old", "asked", "new"], NOW) == [1_000, None, 1_000]
