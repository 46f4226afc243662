"""Estimates of tokens, summaries and clippings."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.memory.summary import clipped, summarize
from services.memory.tokens import estimate


def test_a_short_text_is_its_own_summary() -> None:
    assert summarize(["One.", " ", "Two."], max_tokens=50) == "One.\nTwo."


def test_what_many_sentences_are_about_and_what_was_decided_stays() -> None:
    idle = [f"Well, hm, filler {number}." for number in range(20)]
    told = ["The budget of the launch is 5000 euros.", "We decided to launch in March.", "The launch budget is final."]
    summary = summarize([*idle[:10], *told, *idle[10:]], max_tokens=40)
    assert "We decided to launch in March." in summary
    assert "The budget of the launch is 5000 euros." in summary
    assert summary.index("5000") < summary.index("decided")


def test_a_sentence_ends_where_one_does() -> None:
    assert summarize(["The 10. sensor was calibrated. All is well."], max_tokens=6) == "All is well."
    assert summarize(["They met in 2024. Then they left at once, by train."], max_tokens=8) == "They met in 2024."
    assert (
        summarize(["发布推迟到三月。艾达同意通知所有人因为供应商没有按时交付。"], max_tokens=12) == "发布推迟到三月。"
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=80), max_size=8), st.integers(1, 60))
def test_no_summary_is_longer_than_it_may_be(texts: list[str], budget: int) -> None:
    assert estimate(summarize(texts, max_tokens=budget)) <= budget


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=200), st.integers(1, 30))
def test_no_clipping_is_longer_than_it_may_be(text: str, budget: int) -> None:
    cut = clipped(text, budget)
    assert estimate(cut) <= budget
    assert cut == text or cut in ("", "…") or text.startswith(cut[:-1])


@pytest.mark.parametrize(
    ("text", "budget", "cut"), [("one two three four", 3, "one two…"), ("abc", 1, "abc"), ("a!b!", 3, "a!…")]
)
def test_a_clipping_ends_between_words(text: str, budget: int, cut: str) -> None:
    assert clipped(text, budget) == cut
