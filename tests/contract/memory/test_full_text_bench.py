"""Postgres's full text search, as the bench of evidence retrieval has it."""

from __future__ import annotations

from dataclasses import replace

from deploy.local.postgres import Cluster
from services.memory.store import Corpus, Gathered
from tests.bench import memory_evidence as bench
from tests.support.memory import NOW, memory

TURNS = [memory(text, turn_id=f"D1:{at}") for at, text in enumerate(("Dogs bark.", "A cat and a dog.", "It rains."))]


async def test_any_word_of_the_question_finds_and_the_order_is_that_of_postgres(postgres: Cluster) -> None:
    asked = bench.Question("Which dogs bark?", 4, frozenset({"D1:0"}))
    told = bench.Conversation("one", tuple(TURNS), (asked,))
    empty = Gathered([], {}, Corpus(0, 1.0, {}))
    case = bench.Case("one", asked, empty, [(turn, 0.0) for turn in TURNS], empty.corpus, NOW)
    other = replace(case, question=replace(asked, text="Where is the sun?"))
    await bench.search_full_text(postgres.dsn("memory"), [told], [case, other])
    assert [one.turn_id for one in bench.by_full_text(case)] == ["D1:0", "D1:1"]
    assert bench.by_full_text(other) == []
