"""Words, their weight, and slips of the fingers."""

from __future__ import annotations

import pytest

from services.memory.store import Corpus
from services.memory.words import bm25, counted, meant, stems, weight, words_of
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
