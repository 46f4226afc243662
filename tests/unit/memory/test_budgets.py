"""Budgets of tokens hold, counted by the vocabularies of models."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.inference.tokenizers import Tokenizer
from services.inference.vocabularies import cl100k_base, o200k_base
from services.memory import context
from services.memory.context import Options, assemble
from services.memory.fact_store import Fact
from services.memory.rank import Explanation, Ranked
from services.memory.store import ShortTermTurn
from services.memory.summary import clipped, summarize
from services.memory.tokens import estimate, within
from tests.support.memory import memory

# In twenty languages, and what is no language: numbers, keys, addresses, JSON, code, tables.
SAID = Path(__file__).with_name("said.txt").read_text().rstrip().split("\n===\n")
VOCABULARIES = (cl100k_base(), o200k_base())
texts = st.lists(st.sampled_from(SAID), min_size=1, max_size=6).map("\n".join)


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("text", SAID)
def test_a_text_is_not_more_tokens_than_is_said_nor_much_less(vocabulary: Tokenizer, text: str) -> None:
    assert vocabulary.count(text) <= estimate(text)
    assert estimate(text) <= 1.7 * max(one.count(text) for one in VOCABULARIES) + 2


def test_english_is_estimated_a_few_percent_high() -> None:
    text = "\n".join(SAID[:2] * 5)
    assert 1 <= estimate(text) / VOCABULARIES[0].count(text) <= 1.1


@pytest.mark.parametrize("budget", [10, 40, 150, 600])
@settings(max_examples=15, deadline=None)
@given(
    said=st.lists(texts, max_size=8), known=st.lists(texts, max_size=6), facts=st.lists(texts, max_size=4), note=texts
)
def test_a_context_is_never_above_its_budget_for_a_model(
    budget: int, said: list[str], known: list[str], facts: list[str], note: str
) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    material = context._Material(
        older=note,
        tail=[ShortTermTurn(str(at), "Athena", text, now) for at, text in enumerate(said)],
        facts=[
            Fact(str(at), "user:ada", "says", text, several=False, valid_from=now, recorded_at=now)
            for at, text in enumerate(facts)
        ],
        found=[Ranked(memory(text), 0.5, 0.5, Explanation({}, 0, 0, (), 1, 0.5)) for text in known],
        episodes=[],
    )
    made = assemble(material, Options(max_tokens=budget, handoff_from="Apollo", handoff_note=note))
    assert made.tokens == estimate(made.text) <= budget
    assert all(vocabulary.count(made.text) <= budget for vocabulary in VOCABULARIES)


@settings(max_examples=60, deadline=None)
@given(st.lists(texts, max_size=6), st.integers(16, 200))
def test_a_summary_is_never_above_its_budget_for_a_model(many: list[str], budget: int) -> None:
    for made in (summarize(many, max_tokens=budget), clipped("\n".join(many), budget)):
        assert estimate(made) <= budget
        assert all(vocabulary.count(made) <= budget for vocabulary in VOCABULARIES)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200), st.integers(0, 60))
def test_a_beginning_is_as_long_as_it_may_be(text: str, tokens: int) -> None:
    cut = within(text, tokens)
    assert text.startswith(cut)
    assert estimate(cut) <= tokens
    assert cut == text or estimate(text) > tokens


def test_what_has_no_spaces_is_cut_too() -> None:
    assert within("发布推迟到三月因为供应商未能按时交付第二批传感器" * 3, 20) == "发布推迟到三月因为供应商未能"
    assert within("x1" * 100, 6) == "x1x1x1"
