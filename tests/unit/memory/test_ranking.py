"""Cues, signs and the order they make."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.memory import kinds
from services.memory.closely import WIDTH, Closeness
from services.memory.cues import cues_of
from services.memory.kinds import Kind, kinds_of
from services.memory.rank import LEARNED, Taste, ranked, signs, with_neighbours
from services.memory.store import Corpus, Found, Gathered
from services.memory.texts import Reading, query_words
from services.memory.words import cut, cut_all
from tests.support.memory import NOW, memory

_LINES = ("Thanks, my Ada", "that one", "we met, Bob and Ann Lee " + "and Bo " * 9)


def found(content: str, cosine: float, place: int, **more: object) -> Found:
    return Found(memory(content, place=place, **more), cosine)


def test_a_question_tells_who_spoke_and_when() -> None:
    cues = cues_of("What did Ada say in May 2023 about the 5th of July?", {"Ada", "Bob"})
    assert cues.speakers == {"Ada"}
    assert (cues.months, cues.years, cues.days) == ({5, 7}, {2023}, {5})
    assert cues.fits(datetime(2023, 7, 5, tzinfo=UTC)) == 1.0
    assert cues.fits(datetime(2022, 7, 6, tzinfo=UTC)) == pytest.approx(1 / 3)
    assert cues.contradicts("Bob")
    assert not cues.contradicts("Ada")


def test_may_is_a_month_only_where_it_stands_like_one() -> None:
    assert cues_of("May I ask?", set()).months == frozenset()
    assert cues_of("on 3 May", set()).months == {5}
    assert cues_of("It may be 3", set()).fits(NOW) == 0.0


def test_two_names_do_not_tell_who_spoke() -> None:
    cues = cues_of("Where did Ada and Bob meet?", {"Ada", "Bob", ""})
    assert (cues.speakers, cues.names) == (frozenset(), {"ada", "bob"})


@pytest.mark.parametrize(
    ("question", "asks"),
    [
        ("When did it rain?", True),
        ("How long was it?", True),
        ("Which year?", True),
        ("What when?", False),
        ("Who?", False),
    ],
)
def test_a_question_for_a_time_is_known(question: str, asks: bool) -> None:
    assert cues_of(question, set()).asks_when == asks
    assert cues_of("", set()).tells_time("We met last Monday")
    assert not cues_of("", set()).tells_time("We met")


def test_the_answer_beside_the_question_becomes_a_candidate() -> None:
    asked = found("Where were you born?", 0.9, 1, session_id="s")
    told = found("In Quito", 0.1, 2, session_id="s")
    gathered = Gathered([asked], {1: [(1, told)], 7: [(-1, asked)]}, Corpus(2, 3.0, {"born": 1}))
    assert [one.memory.place for one in with_neighbours(gathered, lambda _: True).pool] == [1, 2]
    assert [one.memory.place for one in with_neighbours(gathered, lambda _: False).pool] == [1]
    names, values = signs("Where was she born?", with_neighbours(gathered, lambda _: True))
    told_signs = dict(zip(names, values[1], strict=True))
    assert (told_signs["answers"], told_signs["words_before"], told_signs["meaning_before"]) == (1.0, 1.0, 1.0)


def test_nothing_found_is_ranked_as_nothing() -> None:
    assert ranked("q", Gathered([], {}, Corpus(0, 1.0, {})), Taste(), now=NOW, limit=5) == []


def test_parts_add_up_and_age_and_importance_weigh_in() -> None:
    old = found("same words", 0.5, 1, created_at=NOW - timedelta(days=10), importance=1.0)
    taste = Taste(half_life=timedelta(days=10), importance_weight=1.0)
    gathered = Gathered([old], {}, Corpus(1, 2.0, {"word": 1}))
    (plain,) = ranked("words", gathered, Taste(), now=NOW, limit=1)
    (weighed,) = ranked("words", gathered, taste, now=NOW, limit=1)
    assert weighed.relevance == pytest.approx(plain.relevance * 0.5 * 1.5)
    assert weighed.explanation.recency == 0.5
    assert set(plain.explanation.parts) <= set(LEARNED.unread)


def test_a_question_without_words_is_still_ranked_by_meaning() -> None:
    pool = [found("alpha", 0.2, 1), found("beta", 0.8, 2)]
    order = ranked("?!", Gathered(pool, {}, Corpus(2, 1.0, {})), Taste(), now=NOW, limit=2)
    assert [one.memory.content for one in order] == ["beta", "alpha"]
    assert query_words("?!") == ()


def _token(*axes: int) -> bytes:
    """One token a number, along that axis."""
    return b"".join(bytes(127 if at == axis else 0 for at in range(WIDTH)) for axis in axes)


def test_the_nearest_token_counts_and_a_text_without_any_is_told_apart() -> None:
    close = Closeness.of(_token(0, 1), [_token(5, 0), _token(1), b"", b""])
    assert close.near.tolist() == [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]]
    assert close.read.tolist() == [True, True, False, False]
    both = close.rows([0, 2]).joined(close.rows([1, 3]))
    assert both.near.tolist() == [[1.0, 1.0], [0.0, 0.0]]
    assert close.above_usual(close.telling()).tolist() == pytest.approx([0.0, 0.0, 0.0, 0.0])
    assert not Closeness.of(b"", [_token(0)]).read.any()


def test_a_token_weighs_as_much_as_its_best_text_stands_out() -> None:
    everywhere, once = 0, 1
    close = Closeness.of(_token(everywhere, once), [_token(0), _token(0), _token(0, 1), b""])
    assert close.telling().tolist() == pytest.approx([0.0, 1.0], abs=1e-5)
    assert close.above_usual(close.telling()).tolist() == pytest.approx([-1 / 3, -1 / 3, 2 / 3, 0.0], abs=1e-4)


def test_what_stands_out_sharply_weighs_more_and_is_told_from_the_usual() -> None:
    texts = [_token(0, 1), *[_token(0)] * 7, b""]
    close = Closeness.of(_token(0, 1), texts)
    close.near[1, 0] = 0.5
    plain, keen = close.telling(), close.telling(sharply=True)
    assert keen[1] > plain[1]
    assert keen.sum() == pytest.approx(1.0)
    assert close.standing_out(plain, 2.5).tolist() == pytest.approx([plain[1], *[0.0] * 8])
    assert close.standing_out(plain, 0.0)[:3].tolist() == pytest.approx([1.0, 0.0, plain[0]])
    assert Closeness.of(b"", [_token(0)]).standing_out(np.zeros(0), 1.0).tolist() == [0.0]


def _told(gathered: Gathered, tokens: bytes = b"") -> list[dict[str, float]]:
    names, values = signs("Which boat?", gathered, tokens)
    return [dict(zip(names, row, strict=True)) for row in values.tolist()]


def test_tokens_of_the_turns_around_count_as_far_as_those_are_candidates() -> None:
    line = [found(f"said {place}", 0.5, place, session_id="s") for place in range(1, 6)]
    beside = {at + 1: [(step, line[at + step]) for step in (-1, 1) if 0 <= at + step < 5] for at in range(5)}
    tokens = {place: _token(3 if place == 1 else 9) for place in range(1, 6)}
    told = _told(Gathered(line, beside, Corpus(5, 2.0, {}), tokens), _token(3))
    assert [one["tokens_after"] for one in told] == [0.0, 0.0, 0.0, 0.0, 0.0]
    assert [one["tokens_before"] for one in told] == [0.0, 1.0, 0.0, 0.0, 0.0]
    assert [one["tokens_keen_around"] for one in told] == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert [one["tokens_keen_wide"] for one in told] == [1.0, 1.0, 1.0, 0.0, 0.0]
    assert [one["tokens_standing_out"] for one in told] == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert told[0]["tokens_place"] == 1.0


def test_read_token_by_token_the_nearer_comes_first_and_parts_still_add_up() -> None:
    pool = [found(f"said {n}", 0.5, n + 1) for n in range(3)]
    tokens = {1: _token(9), 2: _token(3), 3: b""}
    gathered = Gathered(pool, {}, Corpus(3, 2.0, {}), tokens)
    reading = Reading("what?", gathered, _token(3))
    order = ranked("what?", gathered, Taste(), now=NOW, limit=3, reading=reading)
    places = [one.memory.place for one in order]
    assert places.index(2) < places.index(1)
    for one in order:
        odds = sum(one.explanation.parts.values()) + LEARNED.base
        assert one.relevance == pytest.approx(1 / (1 + math.exp(-odds)), abs=1e-3)
        assert ("tokens_similarity" in one.explanation.parts) == (one.memory.place == 2)
        assert ("read" in one.explanation.parts) == (one.memory.place != 3)


def test_without_the_questions_tokens_nothing_is_read() -> None:
    gathered = Gathered([found("said", 0.5, 1)], {}, Corpus(1, 1.0, {}), {1: _token(1)})
    (one,) = ranked("said", gathered, Taste(), now=NOW, limit=1)
    assert not {"read", "tokens", "tokens_similarity", "tokens_around"} & set(one.explanation.parts)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("I bought 3 of them", Kind(number=True, quote=False, names=0, own=True, reply=False)),
        ('Thanks! She read "Dune" in Quito', Kind(number=False, quote=True, names=1, own=False, reply=True)),
        ("Eight of us, from Rome to Paris", Kind(number=True, quote=False, names=2, own=False, reply=False)),
        ("", Kind(number=False, quote=False, names=0, own=False, reply=False)),
    ],
)
def test_what_kind_of_line_a_text_is(text: str, kind: Kind) -> None:
    assert kinds_of([text]) == [kind]
    assert kinds_of(["Thanks", text, "one"])[1] == kind


@pytest.mark.parametrize(
    ("question", "sign"),
    [
        ("How many cats?", "number_asked"),
        ("Where was it?", "place_asked"),
        ("Which cities?", "place_asked"),
        ("What did she read?", "title_asked"),
        ("Who came?", "person_asked"),
    ],
)
def test_the_kind_that_is_asked_for_is_a_sign(question: str, sign: str) -> None:
    asked = ("number_asked", "place_asked", "title_asked", "person_asked")
    text = ['We saw 3 plays, "Faust" with Ada']
    shown = kinds.signs(question, kinds.columns(text, cut_all(text)))
    (row,) = zip(*(shown[name] for name in asked), strict=True)
    assert [name for name, value in zip(asked, row, strict=True) if value] == [sign]


@given(st.lists(st.text("aZ bC,\"'?!.·_-1٣éÉ\u00a0I\u2003日İß\n", max_size=14) | st.sampled_from(_LINES), max_size=9))
def test_texts_together_are_of_the_kinds_they_are_alone(texts: list[str]) -> None:
    assert kinds_of(texts) == [_alone(text) for text in texts]


def _alone(text: str) -> Kind:
    words = cut(text)
    return Kind(
        number=bool(re.search(r"\d", text)) or "one" in words, quote='"' in text,
        names=min(len(re.findall(r"(?<=[a-z,] )[A-Z][a-z]", text)), 8), own=not {"i", "my", "we"}.isdisjoint(words),
        reply=bool(words) and words[0] in {"thanks", "that"},
    )  # fmt: skip
