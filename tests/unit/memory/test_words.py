"""Words, their weight, and slips of the fingers."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.memory import words
from services.memory.store import Corpus, Found
from services.memory.texts import Texts
from services.memory.words import bm25, counted, meant, mended, stems, weight, words_of
from tests.support.memory import memory


def test_forms_of_a_word_are_one_and_function_words_are_none() -> None:
    assert stems("The dogs were running; she went to her dog's runs") == ["dog", "run", "go", "dog", "run"]
    assert counted("Bought, buy, BUYING") == {"buy": 3}
    assert stems("снег и лёд 42 a_b") == ["снег", "и", "лёд", "42", "b"]


def test_a_rare_word_tells_more_than_a_frequent_one() -> None:
    corpus = Corpus(100, 5.0, {"rare": 1, "frequent": 90})
    assert weight("rare", corpus) > weight("frequent", corpus) > 0
    assert weight("unknown", corpus) > weight("rare", corpus)


def test_a_shorter_text_and_a_repeated_word_score_higher() -> None:
    corpus = Corpus(10, 4.0, {"cat": 2})
    short, long = counted("cat dog"), counted("cat dog bird fish horse cow")
    assert bm25(short, ["cat"], corpus) > bm25(long, ["cat"], corpus) > 0
    assert bm25(counted("cat cat"), ["cat"], corpus) > bm25(short, ["cat"], corpus)
    assert bm25(short, ["bird"], corpus) == 0


def test_texts_of_an_embedding_set_have_no_words() -> None:
    assert words_of(memory("cat")) == {"cat": 1}
    assert words_of(memory("cat", embedding_set="restricted")) == {}


@given(texts=st.lists(st.text("aB3 ·|_-ßİé\u2028\n", max_size=12), max_size=4), known=st.sampled_from([0, 200_000]))
def test_texts_read_at_once_hold_what_each_holds_alone(texts: list[str], known: int) -> None:
    asked = ["a", "b", "é", "unheard"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "_NUMBERED", known)
        read = Texts.of([Found(memory(text), 0.5) for text in texts], asked)
    assert read.times.tolist() == [[Counter(stems(text))[word] for word in asked] for text in texts] + [
        [0.0] * len(asked)
    ]
    assert read.lengths.tolist() == [*(len(stems(text)) for text in texts), 0]
    assert read.cosines.tolist() == [*(0.5 for _ in texts), 0.0]


@pytest.mark.parametrize(
    ("word", "known", "found"),
    [
        ("kubrenetes", ["kubernetes", "kudos"], "kubernetes"),
        ("colour", ["color", "cold"], "color"),
        ("teh", ["the"], None),
        ("receive", ["recieve", "recipe"], "recieve"),
        ("tables", ["chairs"], None),
        ("databse", ["database", "databases"], "database"),
        ("word", [], None),
    ],
)
def test_a_slip_is_understood_and_a_stranger_is_not(word: str, known: list[str], found: str | None) -> None:
    assert meant(word, known) == found


def test_what_was_meant_takes_the_place_of_the_slip() -> None:
    assert mended("Who is Lovlace, in Turin?", {"lovlac": "lovelac"}) == "Who is lovelac, in Turin?"
